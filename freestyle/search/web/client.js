// The HTTP side: one search at a time, stale answers dropped, errors as sentences.

const RETRIES = 4;
const PAUSE = 1500; // milliseconds before a picture is asked for again
const TOKEN = "freestyle-token";

/** What went wrong, in one sentence; `status` is 0 where no answer came. */
export class SearchError extends Error {
  constructor(sentence, status = 0, wait = 0) {
    super(sentence);
    this.status = status;
    this.wait = wait; // seconds after which it may be tried again
  }

  get passes() {
    return this.status === 429 || this.status === 503;
  }
}

function stored() {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return "";
  }
}

/** Asks the server that the page came from. */
export class Client {
  constructor() {
    this.token = stored();
    this.sequence = 0;
    this.running = null;
  }

  setToken(token) {
    this.token = token;
    try {
      sessionStorage.setItem(TOKEN, token);
    } catch {
      // Kept in memory alone, then.
    }
  }

  async #fetch(path, options = {}) {
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new SearchError("The server does not answer. Is it still running?");
    }
    if (response.ok) return response;
    const wait = Number(response.headers.get("Retry-After")) || 1;
    throw new SearchError(await sentence(response), response.status, wait);
  }

  /** Fetch, and once more if the server is only busy. */
  async #again(path) {
    try {
      return await this.#fetch(path);
    } catch (error) {
      if (!(error instanceof SearchError) || !error.passes) throw error;
      await new Promise((done) => setTimeout(done, PAUSE));
      return this.#fetch(path);
    }
  }

  /** What the server says of its gallery. */
  async info() {
    return (await this.#fetch("info")).json();
  }

  /**
   * Ask; a newer call ends an older one.
   *
   * @param request The JSON of POST /search; image parts name files.
   * @param files Blobs by the name of their field.
   * @param waiting Called with seconds and the refusal's status before another try.
   * @returns The answer, or null where a newer call came in between.
   */
  async search(request, files, waiting = () => {}) {
    this.running?.abort();
    const abort = (this.running = new AbortController());
    const sequence = ++this.sequence;
    for (let tries = 0; ; tries++) {
      const body = new FormData(); // anew each time: a body is read once
      body.set("request", JSON.stringify(request));
      for (const [name, blob] of Object.entries(files)) body.set(name, blob, blob.name ?? name);
      try {
        const options = { method: "POST", body, signal: abort.signal };
        const answer = await (await this.#fetch("search", options)).json().catch(cutShort);
        return sequence === this.sequence ? answer : null;
      } catch (error) {
        if (sequence !== this.sequence || error.name === "AbortError") return null;
        if (!(error instanceof SearchError) || !error.passes || tries >= RETRIES) throw error;
        const seconds = Math.min(error.wait * 2 ** tries, 10);
        waiting(seconds, error.status);
        await pause(seconds * 1000, abort.signal);
        if (sequence !== this.sequence) return null;
      }
    }
  }

  /** Forget what is being asked. */
  cancel() {
    this.sequence++;
    this.running?.abort();
  }

  /** Fill an <img>; where a token is needed, its bytes are fetched with it. */
  async picture(image, path) {
    if (!this.token) {
      // A busy server may refuse some of many; a second time is enough.
      const again = () => setTimeout(() => (image.src = path), PAUSE);
      image.addEventListener("error", again, { once: true });
      image.src = path;
      return;
    }
    const blob = await (await this.#again(path)).blob();
    const url = URL.createObjectURL(blob);
    image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    image.src = url;
  }

  /** Open a photo at its full size in a tab of its own. */
  async open(id) {
    const path = photoPath(id);
    if (!this.token) {
      window.open(path, "_blank", "noopener");
      return;
    }
    const tab = window.open("", "_blank"); // now, or it counts as a pop-up
    const blob = await (await this.#fetch(path)).blob();
    if (tab) tab.location = URL.createObjectURL(blob);
  }
}

export const photoPath = (id) => `image/${encodeURIComponent(id)}`;
export const thumbnailPath = (id) => `thumbnail/${encodeURIComponent(id)}`;

function cutShort(error) {
  if (error.name === "AbortError") throw error;
  throw new SearchError("The answer was cut short. Try again.");
}

function pause(milliseconds, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}

async function sentence(response) {
  const answer = await response.json().catch(() => ({}));
  if (typeof answer.error === "string" && answer.error) {
    const text = answer.error.trim();
    return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
  }
  return `The server answered with status ${response.status}.`;
}
