// The sketch pad: pointers and keys become strokes of a Drawing.

import { Drawing, drawAll, drawStroke, isBlank } from "./ink.js";
import { Tools } from "./tools.js";

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
    this.tools = new Tools(this.canvas);
    this.active = null; // the stroke being drawn
    this.pointer = null;
    this.cursor = null; // where the keyboard's pen is
    $("undo").addEventListener("click", () => this.drawing.undo());
    $("redo").addEventListener("click", () => this.drawing.redo());
    $("clear").addEventListener("click", () => this.clear());
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
    return isBlank(this.strokes);
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
    this.active = { points: [point], ...this.tools.stroke(erase) };
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
    const pressed = this.tools.pressure && event.pointerType === "pen" && event.pressure > 0;
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
      if (event.pointerType === "pen") this.tools.offerPressure();
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
      else if (key === "Delete" || key === "Backspace") this.clear();
      else if (!this.tools.key(key)) return;
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
