// One page: what is asked on one side, what is found on the other.

import { Client, SearchError, thumbnailPath } from "./client.js";
import { acceptDialogs } from "./dialogs.js";
import { offerExamples } from "./examples.js";
import { Pad } from "./pad.js";
import { Parts } from "./parts.js";
import { Peek } from "./peek.js";
import { acceptPictures } from "./pictures.js";
import { TOP, emptyQuery, fromHash, lackOf, requestOf, toHash } from "./query.js";
import { Results, nameOf } from "./results.js";
import { Trail } from "./trail.js";

const DELAY = 250; // milliseconds without a change after which a search starts
const QUIET = 900; // and after which a screen reader is told
const MOST = 200; // photos in one answer, unless the server says otherwise
const $ = (id) => document.getElementById(id);

let query = emptyQuery();
let timer = 0;
let telling = 0;
let keys = 0; // of pictures
let turns = 0; // of searches
let limits = {};

const client = new Client();
const pad = new Pad(changed);
const trail = new Trail();
const peek = new Peek(() => results.focus());
const parts = new Parts($("parts"), { changed, removed });
const results = new Results($("grid"), client, {
  chosen: moreLike,
  opened: (hit) => client.open(hit.id).catch(fail),
});
const dialogs = acceptDialogs((token) => {
  client.setToken(token);
  return greet().then(() => search());
});

// -- asking ------------------------------------------------------------------------------

function changed() {
  query.top = TOP;
  parts.show(query, !pad.empty);
  $("working").hidden = false;
  clearTimeout(timer);
  timer = setTimeout(search, DELAY);
}

async function search() {
  clearTimeout(timer);
  $("working").hidden = false;
  query.strokes = pad.drawing.strokes;
  trail.keep(query);
  const turn = ++turns;
  const asked = await requestOf(query, pad.strokes);
  if (turn !== turns) return; // a newer search has begun while the picture was made
  $("banner").hidden = true;
  if (!asked) {
    client.cancel();
    showNothing(lackOf(query, !pad.empty));
    return;
  }
  try {
    const answer = await client.search(asked.request, asked.files, waiting);
    if (answer) show(answer, asked.asked);
  } catch (error) {
    fail(error);
  }
}

function waiting(seconds, status) {
  const why = status === 429 ? "That was too quick for the server" : "The server is busy";
  banner(`${why}: trying again in ${Math.ceil(seconds)} s.`, false);
}

function fail(error) {
  if (!(error instanceof SearchError)) throw error;
  $("working").hidden = true;
  if (error.status === 401) dialogs.signIn(Boolean(client.token));
  else banner(error.message, true);
}

function banner(sentence, retry) {
  $("banner-text").textContent = sentence;
  $("retry").hidden = !retry;
  $("banner").hidden = false;
}

// -- showing -----------------------------------------------------------------------------

function show(answer, asked) {
  $("working").hidden = true;
  $("banner").hidden = true;
  $("empty").hidden = true;
  const { hits } = answer;
  const { length } = hits;
  results.show(hits, asked);
  parts.read(asked, answer.parts);
  const among = `${answer.photos.toLocaleString("en")} photos`;
  const took = Math.round(answer.milliseconds?.total ?? 0);
  $("timing").textContent = length ? `best ${length} of ${among} · ${took} ms` : `of ${among}`;
  const most = Math.min(limits.top ?? MOST, answer.photos);
  $("more").hidden = length < query.top || query.top >= most;
  $("found-title").textContent = length ? "Results" : "No photo fits the filter";
  const best = length ? `, best: ${nameOf(hits[0])}` : "";
  const found = `${length} ${length === 1 ? "photo" : "photos"}`;
  tell(`${found} found${best}`);
  peek.show(found, results.best(4));
}

function showNothing(lack) {
  $("working").hidden = true;
  results.clear();
  $("empty").hidden = false;
  $("lack").textContent = lack;
  $("more").hidden = true;
  $("timing").textContent = "";
  $("found-title").textContent = "Results";
  tell(lack);
  peek.hide();
}

function tell(sentence) {
  clearTimeout(telling);
  telling = setTimeout(() => ($("announce").textContent = sentence), QUIET);
}

/** Put a query into all fields. */
function fill(next) {
  query = next;
  for (const field of ["text", "not", "where"]) $(field).value = query[field];
  $("like").hidden = !query.like;
  document.body.classList.toggle("liking", Boolean(query.like));
  if (query.like) {
    $("like-name").textContent = query.like.name;
    $("like-picture").removeAttribute("src");
    client.picture($("like-picture"), thumbnailPath(query.like.id)).catch(() => {});
    $("back").querySelector("span").textContent = trail.depth
      ? "Back to your search"
      : "Start a new search";
  }
  $("text").placeholder = query.like ? "but … at night, in red, with snow" : "Describe it";
  if (query.where) openFilter(true);
  pad.show(query.strokes);
  parts.show(query, !pad.empty);
}

// -- more like this, and the way back ----------------------------------------------------

function moreLike(hit) {
  const next = emptyQuery();
  next.where = query.where;
  next.like = { id: hit.id, name: nameOf(hit) };
  query.strokes = pad.drawing.strokes;
  trail.push(query, next);
  fill(next);
  search();
  window.scrollTo({ top: 0 });
  $("back").focus({ preventScroll: true });
}

function back() {
  if (trail.depth) history.back();
  else {
    fill(emptyQuery());
    search();
  }
}

function removed(part) {
  if (part.kind === "drawing") pad.clear();
  else if (part.kind === "like") forgetLike();
  else if (part.kind === "picture") {
    query.pictures = query.pictures.filter((picture) => picture !== part.picture);
  } else {
    query[part.kind] = "";
    $(part.kind).value = "";
  }
  changed();
}

function forgetLike() {
  query.like = null;
  fill({ ...query, strokes: pad.drawing.strokes });
  changed();
}

function addPicture(blob, name) {
  const url = URL.createObjectURL(blob);
  const picture = { key: ++keys, name, blob, url, weight: 1, exclude: false };
  query.pictures = [...query.pictures, picture];
  changed();
}

function openFilter(open) {
  $("filter").hidden = !open;
  $("filter-button").setAttribute("aria-expanded", open);
}

// -- the page ----------------------------------------------------------------------------

function wire() {
  for (const field of ["text", "not", "where"]) {
    $(field).addEventListener("input", (event) => {
      query[field] = event.target.value;
      changed();
    });
    $(field).addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) search();
    });
  }
  $("retry").addEventListener("click", () => search());
  $("more").addEventListener("click", () => {
    query.top = Math.min(query.top + TOP * 2, limits.top ?? MOST);
    search();
  });
  $("back").addEventListener("click", back);
  $("like-remove").addEventListener("click", forgetLike);
  $("filter-button").addEventListener("click", () => {
    openFilter($("filter").hidden);
    if (!$("filter").hidden) $("where").focus();
  });
  $("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address holds the query
    if (results.count) results.focus();
    else $("results").focus();
  });
  $("home").addEventListener("click", (event) => {
    event.preventDefault();
    query.strokes = pad.drawing.strokes;
    const next = emptyQuery();
    trail.push(query, next);
    fill(next);
    search();
  });
  window.addEventListener("popstate", (event) => {
    fill(trail.at(event.state) ?? fromHash(location.hash));
    search();
  });
  window.addEventListener("keydown", shortcut);
  acceptPictures(addPicture);
  offerExamples({
    drawn: (strokes) => {
      pad.show([]);
      pad.drawing.set(strokes);
    },
    said: (phrase) => {
      $("text").value = query.text = phrase;
      changed();
    },
  });
}

function shortcut(event) {
  const mac = /Mac|iPhone|iPad/.test(navigator.platform);
  const writing = event.target.closest("input:not([type=range]), textarea, dialog");
  if ((mac ? event.metaKey : event.ctrlKey) && !writing) {
    const key = event.key.toLowerCase();
    if (key === "z" && !event.shiftKey) pad.drawing.undo();
    else if (key === "y" || key === "z") pad.drawing.redo();
    else return;
    event.preventDefault();
    return;
  }
  if (event.key === "Escape" && query.like && !document.querySelector("dialog[open]")) back();
  if (writing || event.ctrlKey || event.metaKey || event.altKey) return;
  const onPad = event.target.id === "canvas";
  if (event.key === "/") $("text").focus();
  else if (event.key === "?") dialogs.help();
  else if (!onPad && event.key === "d") pad.focus();
  else if (!onPad && event.key === "r" && results.count) results.focus();
  else return;
  event.preventDefault();
}

/** What the gallery holds; asks for a token where one is needed. */
async function greet() {
  try {
    const info = await client.info();
    limits = info.limits ?? {};
    const photos = info.photos.toLocaleString("en");
    $("gallery").textContent = `${photos} ${info.photos === 1 ? "photo" : "photos"}`;
    const columns = Object.keys(info.columns ?? {});
    $("columns").textContent = columns.length ? ` Columns: ${columns.join(", ")}.` : "";
  } catch (error) {
    fail(error);
  }
}

wire();
fill(trail.at(history.state) ?? fromHash(location.hash));
greet();
if (location.hash.length > 1 || query.strokes.length) search();
