// The pad's tools: what a stroke is drawn with, as radio groups that arrow keys go through.

import { COLOURS, WIDTHS } from "./ink.js";

const $ = (id) => document.getElementById(id);

/** Pen or eraser, width, colour, and whether a stylus' pressure counts. */
export class Tools {
  constructor(canvas) {
    this.canvas = canvas;
    this.tool = "pen";
    this.width = 1;
    this.colour = COLOURS[0][0];
    this.pressure = false;
    this.#offerWidths();
    this.#offerColours();
    for (const button of document.querySelectorAll("[data-tool]")) {
      button.addEventListener("click", () => this.setTool(button.dataset.tool));
    }
    for (const group of document.querySelectorAll(".tools [role=radiogroup]")) roving(group);
    $("pressure").addEventListener("click", (event) => {
      this.pressure = !this.pressure;
      event.currentTarget.setAttribute("aria-pressed", this.pressure);
    });
    this.setWidth(this.width);
    this.setColour(this.colour);
  }

  /** How a stroke looks that begins now; `erase` for a stylus' eraser end. */
  stroke(erase = false) {
    const eraser = erase || this.tool === "eraser";
    const width = WIDTHS[this.width].width * (eraser ? 2 : 1);
    return { width, colour: this.colour, erase: eraser };
  }

  /** A stylus is there, so its pressure may count. */
  offerPressure() {
    $("pressure").hidden = false;
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
    check($("colours").querySelectorAll("button"), (_, i) => i === known);
    if (known >= 0) $("colours").querySelector(".own").classList.remove("chosen");
    this.setTool("pen");
  }

  /** Keys that choose a tool while the pad has the focus; says whether it was one. */
  key(key) {
    if (key === "b" || key === "B") this.setTool("pen");
    else if (key === "e" || key === "E") this.setTool("eraser");
    else if (key === "[") this.setWidth(this.width - 1);
    else if (key === "]") this.setWidth(this.width + 1);
    else if (/^[1-9]$/.test(key)) this.setColour(COLOURS[key - 1][0]);
    else return false;
    return true;
  }

  #offerWidths() {
    WIDTHS.forEach(({ width, name }, index) => {
      const button = choice($("widths"), name, `${name} line`);
      const dot = document.createElement("span");
      dot.className = "dot";
      dot.style.setProperty("--size", `${Math.round(4 + width * 120)}px`);
      button.append(dot);
      button.addEventListener("click", () => this.setWidth(index));
    });
  }

  #offerColours() {
    for (const [colour, name] of COLOURS) {
      const button = choice($("colours"), name, name);
      button.style.setProperty("--colour", colour);
      button.addEventListener("click", () => this.setColour(colour));
    }
    const own = document.createElement("label");
    own.className = "own";
    own.title = "Any colour";
    const input = document.createElement("input");
    Object.assign(input, { type: "color", value: "#ff5fa2" });
    input.setAttribute("aria-label", "Any colour");
    input.addEventListener("input", () => {
      own.style.setProperty("--colour", input.value);
      own.classList.add("chosen");
      this.setColour(input.value);
    });
    own.append(input);
    $("colours").append(own);
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
  const all = [...buttons];
  all.forEach((button, index) => {
    button.setAttribute("aria-checked", chosen(button, index));
    button.tabIndex = chosen(button, index) ? 0 : -1;
  });
  if (all.length && all.every((button) => button.tabIndex < 0)) all[0].tabIndex = 0;
}

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
