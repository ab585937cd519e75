// The way back: each query that was left, in the browser's own history.

import { toHash } from "./query.js";

/** Snapshots of queries, by entry of the history. */
export class Trail {
  constructor() {
    this.heavy = new Map(); // pictures and strokes by entry, for as long as the page lives
    this.entry = history.state?.entry ?? newEntry();
  }

  /** How many queries lie behind this one. */
  get depth() {
    return history.state?.depth ?? 0;
  }

  /** Note a query in the present entry. */
  keep(query) {
    this.#write("replaceState", query, this.depth);
  }

  /** Note a query and go on to another. */
  push(query, next) {
    this.keep(query);
    const depth = this.depth + 1;
    this.entry = newEntry();
    this.#write("pushState", next, depth);
  }

  /** The query of an entry, or null where nothing is known of it. */
  at(state) {
    if (!state?.query) return null;
    this.entry = state.entry;
    return { ...state.query, ...this.heavy.get(state.entry) };
  }

  #write(how, query, depth) {
    const { pictures, strokes } = query;
    this.heavy.set(this.entry, { pictures, strokes });
    const hash = toHash(query);
    const address = hash ? `#${hash}` : location.pathname + location.search;
    // Strokes outlive a reload, unless they are more than the browser's history takes.
    for (const kept of [strokes, []]) {
      const state = { entry: this.entry, depth, query: { ...query, pictures: [], strokes: kept } };
      try {
        history[how](state, "", address);
        return;
      } catch {
        continue;
      }
    }
  }
}

const newEntry = () => Math.random().toString(36).slice(2);
