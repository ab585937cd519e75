// The rows below the pad: each part of the query, its weight, and the style that was read.

import { WEIGHTS, partsOf } from "./query.js";

const ICONS = { like: "picture", drawing: "pen", text: "search", not: "minus" };
const SURE = 0.5; // probability from which a style is named without "perhaps"

/** Rows of parts; calls `changed()` when a weight moves and `removed(part)`. */
export class Parts {
  constructor(list, { changed, removed }) {
    this.list = list;
    this.changed = changed;
    this.removed = removed;
    this.rows = new Map();
  }

  /** Show the parts of a query; rows that stay keep their focus. */
  show(query, drawn) {
    const parts = partsOf(query, drawn);
    const kept = new Set();
    parts.forEach((part, index) => {
      const key = part.picture ? `picture-${part.picture.key}` : part.kind;
      kept.add(key);
      let row = this.rows.get(key);
      if (!row) this.rows.set(key, (row = this.#row(part)));
      row.update(part);
      if (this.list.children[index] !== row.element) {
        this.list.insertBefore(row.element, this.list.children[index] ?? null);
      }
    });
    for (const [key, row] of this.rows) {
      if (kept.has(key)) continue;
      const focused = row.element.contains(document.activeElement);
      row.element.remove();
      this.rows.delete(key);
      if (focused) this.list.focus(); // or a keyboard's user would start from the top again
    }
  }

  /** Name the styles that the server read; `readings` are in the order of `asked`. */
  read(asked, readings) {
    asked.forEach((part, index) => {
      const key = part.picture ? `picture-${part.picture.key}` : part.kind;
      this.rows.get(key)?.style(readings[index]?.styles ?? {});
    });
  }

  #row(first) {
    let part = first;
    const element = document.createElement("li");
    element.className = `part kind-${part.kind}`;
    const image = document.createElement(part.picture ? "img" : "span");
    image.className = "part-picture";
    if (part.picture) Object.assign(image, { src: part.picture.url, alt: "" });
    else image.append(icon(ICONS[part.kind]));
    const name = span("part-name");
    const style = span("part-style");
    const words = document.createElement("span");
    words.className = "part-words";
    words.append(name, style);
    const weight = document.createElement("input");
    Object.assign(weight, { type: "range", min: 0, max: 2, step: 0.05, className: "weight" });
    const value = span("part-weight");
    const close = button("round small", `Remove`, "close");
    weight.addEventListener("input", () => {
      part.setWeight(Number(weight.value));
      show();
      this.changed();
    });
    weight.addEventListener("dblclick", () => {
      weight.value = WEIGHTS[part.kind] ?? 1;
      weight.dispatchEvent(new Event("input"));
    });
    close.addEventListener("click", () => this.removed(part));
    const controls = [weight, value];
    if (part.picture) {
      const not = button("toggle", "Find what is not like this picture");
      not.textContent = "not";
      not.addEventListener("click", () => {
        part.picture.exclude = !part.picture.exclude;
        part.exclude = part.picture.exclude;
        show();
        this.changed();
      });
      controls.unshift(not);
    }
    element.append(image, words, ...controls, close);

    const show = () => {
      const amount = Number(weight.value);
      value.textContent = `${part.exclude ? "−" : ""}${amount.toFixed(2)}`;
      weight.style.setProperty("--filled", `${amount * 50}%`);
      element.classList.toggle("excluded", part.exclude);
      element.querySelector(".toggle")?.setAttribute("aria-pressed", part.exclude);
    };
    return {
      element,
      update(next) {
        part = next;
        name.textContent = part.name;
        name.title = part.name;
        weight.value = part.weight;
        weight.setAttribute("aria-label", `Weight of ${part.name}`);
        close.setAttribute("aria-label", `Remove ${part.name}`);
        show();
      },
      style(styles) {
        const [best] = Object.entries(styles).sort((a, b) => b[1] - a[1]);
        style.textContent = best ? reading(...best) : "";
        style.title = Object.entries(styles)
          .map(([style, share]) => `${style} ${Math.round(share * 100)} %`)
          .join(", ");
      },
    };
  }
}

function reading(style, share) {
  if (style === "other") return "read as a style of its own";
  return share >= SURE ? `read as ${style}` : `perhaps ${style}`;
}

function span(className) {
  const element = document.createElement("span");
  element.className = className;
  return element;
}

/** One of icons.svg. */
export function icon(id) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "i");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `static/icons.svg#${id}`);
  svg.append(use);
  return svg;
}

function button(className, label, iconId) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = className;
  element.setAttribute("aria-label", label);
  if (iconId) element.append(icon(iconId));
  return element;
}
