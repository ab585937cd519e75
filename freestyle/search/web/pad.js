// The sketch pad: pointers and keys become strokes of a Drawing.

import { COLOURS, Drawing, WIDTHS, drawAll, drawStroke } from "./ink.js";

const STEP = 0.04; // of the pad's side, by which an arrow key moves the pen
const FINE = 0.01;

const $ = (id) => document.getElementById(id);
const round = (value) => Math.round(value * 10000) / 10000;

/** Pad and its tools; `changed(strokes)` is called whenever what is seen changes. */
export class Pad {
  constructor(changed) {
    this.changed = changed;
    this.canvas = $("canvas");
    this.context = this.canvas.getContext("2d");
    this.layer = document.createElement("canvas"); // finished strokes, drawn once
    this.drawing = new Drawing(() => this.#changed());
    this.tool = "pen";
    this.width = 1;
    this.colour = COLOURS[0][0];
    this.pressure = false;
    this.active = null; // the stroke being drawn
    this.pointer = null;
    this.cursor = null; // where the keyboard's pen is
    this.#choices();
    this.#pointers();
    this.#keys();
    new ResizeObserver(() => this.#fit()).observe(this.canvas);
    this.#fit();
  }

  get strokes() {
    const { strokes } = this.drawing;
    return this.active ? [...strokes, this.active] : strokes;
  }

  get empty() {
    return !this.strokes.some((stroke) => !stroke.erase);
  }

  /** Show another drawing, with no history. */
  show(strokes) {
    this.active = null;
    this.drawing.replace(strokes);
    this.#refresh();
  }

  clear() {
    this.#finish();
    this.drawing.clear();
  }

  focus() {
    this.canvas.focus();
  }

  // -- what is seen ----------------------------------------------------------------------

  #fit() {
    const side = Math.round(this.canvas.clientWidth * (window.devicePixelRatio || 1));
    if (!side || side === this.canvas.width) return;
    for (const canvas of [this.canvas, this.layer]) canvas.width = canvas.height = side;
    this.#redraw();
  }

  #redraw() {
    const side = this.layer.width;
    const layer = this.layer.getContext("2d");
    layer.clearRect(0, 0, side, side);
    drawAll(layer, this.drawing.strokes, side);
    this.#paint();
  }

  #paint() {
    const side = this.canvas.width;
    this.context.clearRect(0, 0, side, side);
    this.context.drawImage(this.layer, 0, 0);
    if (this.active) {
      drawStroke(
        this.context,
        this.active,
        ([x, y]) => [x * side, y * side],
        (width) => width * side,
      );
    }
    $("hint").classList.toggle("gone", this.strokes.length > 0);
  }

  #refresh() {
    $("undo").disabled = !this.drawing.past.length;
    $("redo").disabled = !this.drawing.future.length;
    $("clear").disabled = !this.drawing.strokes.length;
    this.#redraw();
  }

  #changed() {
    this.#refresh();
    this.changed(this.strokes);
  }

  // -- strokes ---------------------------------------------------------------------------

  #begin(point, erase = false) {
    const eraser = erase || this.tool === "eraser";
    const width = WIDTHS[this.width].width * (eraser ? 2 : 1);
    this.active = { points: [point], width, colour: this.colour, erase: eraser };
    this.#paint();
  }

  #extend(point) {
    const { points } = this.active;
    const [x, y] = points[points.length - 1];
    if (Math.hypot(point[0] - x, point[1] - y) > 0.002) points.push(point);
  }

  #finish() {
    if (!this.active) return;
    const stroke = this.active;
    this.active = null;
    this.pointer = null;
    this.drawing.add(stroke);
  }

  // -- pointers --------------------------------------------------------------------------

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    const pressed = this.pressure && event.pointerType === "pen" && event.pressure > 0;
    const pressure = pressed ? round(0.4 + 1.2 * event.pressure) : 1;
    return [
      round((event.clientX - box.left) / box.width),
      round((event.clientY - box.top) / box.height),
      pressure,
    ];
  }

  #pointers() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (this.pointer !== null || (event.pointerType === "mouse" && event.button !== 0)) return;
      if (event.pointerType === "pen") $("pressure").hidden = false;
      event.preventDefault();
      canvas.classList.add("by-pointer"); // no focus ring while drawing
      canvas.focus({ preventScroll: true });
      this.#hideCursor();
      try {
        canvas.setPointerCapture(event.pointerId);
      } catch {
        // The pointer may be gone already; its stroke then ends at the pad's border.
      }
      this.#finish();
      this.pointer = event.pointerId;
      this.#begin(this.#point(event), event.buttons === 32); // 32: a stylus' eraser end
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.pointer || !this.active) return;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) this.#extend(this.#point(each));
      this.#paint();
      this.changed(this.strokes);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(end, (event) => {
        if (event.pointerId === this.pointer) this.#finish();
      });
    }
  }

  // -- tools -----------------------------------------------------------------------------

  #choices() {
    WIDTHS.forEach(({ width, name }, index) => {
      const button = choice($("widths"), name, `${name} line`);
      const dot = document.createElement("span");
      dot.className = "dot";
      dot.style.setProperty("--size", `${Math.round(4 + width * 120)}px`);
      button.append(dot);
      button.addEventListener("click", () => this.setWidth(index));
    });
    COLOURS.forEach(([colour, name]) => {
      const button = choice($("colours"), name, name);
      button.style.setProperty("--colour", colour);
      button.addEventListener("click", () => this.setColour(colour));
    });
    const own = document.createElement("label");
    own.className = "own";
    own.title = "Any colour";
    own.innerHTML = '<span class="unseen">Any colour</span><input type="color" value="#ff5fa2">';
    own.querySelector("input").addEventListener("input", (event) => {
      own.style.setProperty("--colour", event.target.value);
      own.classList.add("chosen");
      this.setColour(event.target.value);
    });
    $("colours").append(own);
    for (const button of document.querySelectorAll("[data-tool]")) {
      button.addEventListener("click", () => this.setTool(button.dataset.tool));
    }
    for (const group of document.querySelectorAll(".tools [role=radiogroup]")) roving(group);
    $("pressure").addEventListener("click", (event) => {
      this.pressure = !this.pressure;
      event.currentTarget.setAttribute("aria-pressed", this.pressure);
    });
    $("undo").addEventListener("click", () => this.drawing.undo());
    $("redo").addEventListener("click", () => this.drawing.redo());
    $("clear").addEventListener("click", () => this.clear());
    this.setWidth(this.width);
    this.setColour(this.colour);
  }

  setTool(tool) {
    this.tool = tool;
    check(document.querySelectorAll("[data-tool]"), (button) => button.dataset.tool === tool);
    this.canvas.classList.toggle("erasing", tool === "eraser");
  }

  setWidth(index) {
    this.width = Math.min(Math.max(index, 0), WIDTHS.length - 1);
    check($("widths").children, (_, i) => i === this.width);
  }

  setColour(colour) {
    this.colour = colour;
    const known = COLOURS.findIndex(([value]) => value === colour);
    const buttons = [...$("colours").querySelectorAll("button")];
    check(buttons, (_, i) => i === known);
    if (known >= 0) $("colours").querySelector(".own").classList.remove("chosen");
    this.setTool("pen");
  }

  // -- keyboard --------------------------------------------------------------------------

  #keys() {
    const arrows = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, -1],
      ArrowDown: [0, 1],
    };
    this.canvas.addEventListener("keydown", (event) => {
      this.canvas.classList.remove("by-pointer");
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { key } = event;
      if (key in arrows) this.#moveCursor(arrows[key], event.shiftKey ? FINE : STEP);
      else if (key === " ") this.#togglePen();
      else if (key === "Enter") this.#dot();
      else if (key === "b" || key === "B") this.setTool("pen");
      else if (key === "e" || key === "E") this.setTool("eraser");
      else if (key === "[") this.setWidth(this.width - 1);
      else if (key === "]") this.setWidth(this.width + 1);
      else if (key === "Delete" || key === "Backspace") this.clear();
      else if (/^[1-9]$/.test(key)) this.setColour(COLOURS[key - 1][0]);
      else return;
      event.preventDefault();
    });
    this.canvas.addEventListener("blur", () => {
      if (this.pointer === null) this.#finish();
      this.#hideCursor();
      this.canvas.classList.remove("by-pointer");
    });
  }

  #moveCursor([x, y], step) {
    const [fromX, fromY] = this.#showCursor();
    const clamp = (value) => round(Math.min(Math.max(value, 0), 1));
    this.cursor = [clamp(fromX + x * step), clamp(fromY + y * step), 1];
    this.#showCursor();
    if (!this.active || this.pointer !== null) return;
    this.#extend(this.cursor);
    this.#paint();
    this.changed(this.strokes);
  }

  #togglePen() {
    const at = this.#showCursor();
    if (this.active) this.#finish();
    else this.#begin(at);
    this.#showCursor();
  }

  #dot() {
    const at = this.#showCursor();
    this.#finish();
    this.#begin(at);
    this.#finish();
  }

  #showCursor() {
    this.cursor ??= [0.5, 0.5, 1];
    const cursor = $("cursor");
    cursor.hidden = false;
    cursor.classList.toggle("down", this.active !== null);
    cursor.style.left = `${this.cursor[0] * 100}%`;
    cursor.style.top = `${this.cursor[1] * 100}%`;
    return this.cursor;
  }

  #hideCursor() {
    $("cursor").hidden = true;
  }
}

function choice(group, name, title) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("role", "radio");
  button.setAttribute("aria-label", name);
  button.title = title;
  group.append(button);
  return button;
}

function check(buttons, chosen) {
  [...buttons].forEach((button, index) => {
    button.setAttribute("aria-checked", chosen(button, index));
    button.tabIndex = chosen(button, index) ? 0 : -1;
  });
  const all = [...buttons];
  if (all.length && all.every((button) => button.tabIndex < 0)) all[0].tabIndex = 0;
}

// Arrow keys go through the choices of a group, as in any radio group.
function roving(group) {
  group.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (!(event.key in steps) || event.target.tagName !== "BUTTON") return;
    const buttons = [...group.querySelectorAll("button")];
    const from = buttons.indexOf(event.target);
    const next = buttons[(from + steps[event.key] + buttons.length) % buttons.length];
    next.click();
    next.focus();
    event.preventDefault();
  });
}
