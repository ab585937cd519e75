// The grid of photos found: pictures, scores, and which part of the query found each.

import { thumbnailPath } from "./client.js";
import { icon } from "./parts.js";
import { KINDS } from "./query.js";

const STRONG = 4; // standard deviations above the gallery's mean at which a bar is full

/** The grid; `chosen(hit)` is called for "more like this", `opened(hit)` to see it large. */
export class Results {
  constructor(grid, client, { chosen, opened }) {
    this.grid = grid;
    this.client = client;
    this.chosen = chosen;
    this.opened = opened;
    this.tiles = new Map();
    this.hits = [];
    grid.addEventListener("keydown", (event) => this.#key(event));
  }

  get count() {
    return this.hits.length;
  }

  /** Show an answer; photos that were there keep their tiles, so that nothing flickers. */
  show(hits, asked) {
    this.hits = hits;
    const kept = new Set(hits.map((hit) => hit.id));
    for (const [id, tile] of this.tiles) {
      if (kept.has(id)) continue;
      tile.element.remove();
      this.tiles.delete(id);
    }
    hits.forEach((hit, index) => {
      let tile = this.tiles.get(hit.id);
      if (!tile) this.tiles.set(hit.id, (tile = this.#tile()));
      tile.update(hit, index, asked);
      if (this.grid.children[index] !== tile.element) {
        this.grid.insertBefore(tile.element, this.grid.children[index] ?? null);
      }
    });
  }

  /** A few small copies of the best pictures. */
  best(count) {
    const images = [...this.grid.querySelectorAll(".frame img")].slice(0, count);
    return images.map((image) => image.cloneNode());
  }

  clear() {
    this.hits = [];
    this.tiles.clear();
    this.grid.replaceChildren();
  }

  focus(index = 0) {
    this.grid.querySelectorAll(".tile")[index]?.focus();
  }

  #tile() {
    let shown = null;
    const element = document.createElement("li");
    const tile = document.createElement("button");
    tile.type = "button";
    tile.className = "tile";
    const image = document.createElement("img");
    image.alt = "";
    image.draggable = false;
    image.decoding = "async";
    image.addEventListener("load", () => image.classList.add("loaded"));
    const frame = document.createElement("span");
    frame.className = "frame";
    const like = document.createElement("span");
    like.className = "more-like";
    like.setAttribute("aria-hidden", "true");
    like.textContent = "More like this";
    frame.append(image, like);
    const [caption, score, reason, bars] = ["caption", "score", "reason", "bars"].map((name) => {
      const span = document.createElement("span");
      span.className = name;
      return span;
    });
    bars.setAttribute("aria-hidden", "true");
    const line = document.createElement("span");
    line.className = "line";
    line.append(reason, score);
    tile.append(frame, caption, bars, line);
    const open = document.createElement("button");
    open.type = "button";
    open.className = "open";
    open.tabIndex = -1; // by keyboard: O on the tile
    open.title = "Open the photo (O)";
    open.append(icon("open"));
    element.append(tile, open);
    tile.addEventListener("click", () => this.chosen(shown));
    open.addEventListener("click", () => this.opened(shown));
    tile.addEventListener("keydown", (event) => {
      if ((event.key === "o" || event.key === "O") && !event.ctrlKey && !event.metaKey) {
        this.opened(shown);
      }
    });
    return {
      element,
      update: (hit, index, asked) => {
        if (shown?.id !== hit.id) this.client.picture(image, thumbnailPath(hit.id)).catch(() => {});
        shown = hit;
        const name = nameOf(hit);
        const best = reasonOf(hit, asked);
        caption.textContent = caption.title = name;
        score.textContent = hit.score.toFixed(2);
        reason.className = `reason kind-${best?.kind}`;
        reason.textContent = best ? KINDS[best.kind].toLowerCase() : "";
        bars.replaceChildren(...(asked.length > 1 ? partBars(hit, asked) : []));
        tile.setAttribute(
          "aria-label",
          `${index + 1}: ${name}, score ${hit.score.toFixed(2)}` +
            `${best ? `, found by ${KINDS[best.kind].toLowerCase()}` : ""}. More like this`,
        );
        open.setAttribute("aria-label", `Open ${name}`);
      },
    };
  }

  // Arrow keys go to the next tile in their direction, as the grid is laid out now.
  #key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: 0, ArrowDown: 0, Home: 0, End: 0 };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    const tiles = [...this.grid.querySelectorAll(".tile")];
    const from = tiles.indexOf(document.activeElement);
    if (from < 0) return;
    const row = (tile) => tile.parentElement.offsetTop;
    const columns = tiles.filter((tile) => row(tile) === row(tiles[0])).length;
    let to = from + steps[event.key];
    if (event.key === "ArrowUp") to = from - columns;
    if (event.key === "ArrowDown") to = Math.min(from + columns, tiles.length - 1);
    if (event.key === "Home") to = 0;
    if (event.key === "End") to = tiles.length - 1;
    if (to >= 0 && to < tiles.length) tiles[to].focus();
    event.preventDefault();
  }
}

/** What a photo is called: its caption, or its file's name without the extension. */
export function nameOf(hit) {
  const { caption, name, path } = hit.metadata ?? {};
  return (
    caption ||
    (name || path || hit.id)
      .split("/")
      .pop()
      .replace(/\.\w{3,4}$/, "")
  );
}

const reasonOf = (hit, asked) => asked.find((part) => part.label === hit.reason);

function partBars(hit, asked) {
  return asked.map((part, index) => {
    const bar = document.createElement("span");
    bar.className = `bar-part kind-${part.exclude ? "not" : part.kind}`;
    const share = Math.min(Math.max((hit.parts?.[index] ?? 0) / STRONG, 0.03), 1);
    bar.style.setProperty("--share", `${share * 100}%`);
    return bar;
  });
}
