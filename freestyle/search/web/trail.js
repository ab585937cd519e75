// The way back: each query that was left, in the browser's own history.

import { toHash } from "./query.js";

/** Snapshots of queries, by entry of the history; pictures' bytes live as long as the page. */
export class Trail {
  constructor() {
    this.pictures = new Map();
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
    return { ...state.query, pictures: this.pictures.get(state.entry) ?? [] };
  }

  #write(how, query, depth) {
    this.pictures.set(this.entry, query.pictures);
    const state = { entry: this.entry, depth, query: { ...query, pictures: [] } };
    const hash = toHash(query);
    const address = hash ? `#${hash}` : location.pathname + location.search;
    try {
      history[how](state, "", address);
    } catch {
      // Browsers bound how often and how much is written; the search goes on without.
    }
  }
}

const newEntry = () => Math.random().toString(36).slice(2);
