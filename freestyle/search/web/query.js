// What is asked: parts with weights, and the request that they make.

import { queryPicture } from "./ink.js";

export const TOP = 24;
// Photos are much more like each other than like any words: at equal weights, "more like this, but
// in blue" would not hear the words. What a photo should not show only leans away from it.
export const WEIGHTS = { like: 0.4, drawing: 1, text: 1, not: 0.5 };

export const KINDS = {
  like: "This photo",
  drawing: "Drawing",
  text: "Words",
  picture: "Picture",
  not: "Not",
};

/** An empty query. Everything in it but the pictures' bytes goes into the browser's history. */
export function emptyQuery() {
  return {
    text: "",
    not: "",
    where: "",
    like: null, // {id, name}
    strokes: [],
    pictures: [], // {key, name, blob, url, weight, exclude}
    weights: { ...WEIGHTS },
    top: TOP,
  };
}

/**
 * The parts that are asked with, in the order of the request.
 *
 * Each is {kind, name, weight, exclude, setWeight}; a picture has its `picture` too, and a part
 * that was asked with the `label` by which the answer calls it.
 */
export function partsOf(query, drawn) {
  const parts = [];
  const add = (kind, rest = {}) =>
    parts.push({
      kind,
      name: KINDS[kind],
      weight: query.weights[kind],
      exclude: kind === "not",
      setWeight: (weight) => (query.weights[kind] = weight),
      ...rest,
    });
  if (query.like) add("like");
  if (drawn) add("drawing");
  if (query.text.trim()) add("text", { name: `“${query.text.trim()}”` });
  for (const picture of query.pictures) {
    add("picture", {
      picture,
      name: picture.name,
      weight: picture.weight,
      exclude: picture.exclude,
      setWeight: (weight) => (picture.weight = weight),
    });
  }
  if (query.not.trim()) add("not", { name: `“${query.not.trim()}”` });
  return parts;
}

/** Conditions of the filter field. */
export function conditions(where) {
  return where
    .split(";")
    .map((condition) => condition.trim())
    .filter(Boolean);
}

/** Why a query cannot be asked yet, in a sentence; empty where nothing has been begun. */
export function lackOf(query, drawn) {
  const parts = partsOf(query, drawn);
  if (parts.some((part) => !part.exclude)) return "All weights are 0: raise one.";
  const more = "Say, draw or show what you are looking for, too";
  if (parts.length) return `${more}: so far there is only what it should not show.`;
  return conditions(query.where).length ? `${more}: so far there is only a filter.` : "";
}

/** The request's JSON and its files, or null where nothing is asked. */
export async function requestOf(query, strokes) {
  const drawing = await queryPicture(strokes);
  const asked = partsOf(query, drawing !== null).filter((part) => part.weight > 0);
  if (!asked.some((part) => !part.exclude)) return null;
  const files = {};
  asked.forEach((part, index) => (part.label = part.picture ? `picture ${index}` : part.kind));
  const parts = asked.map(({ kind, picture, weight, exclude, label }) => {
    const common = { weight, exclude, name: label };
    if (kind === "like") return { photo: query.like.id, ...common };
    if (kind === "text") return { text: query.text.trim(), ...common };
    if (kind === "not") return { text: query.not.trim(), ...common };
    const name = kind === "drawing" ? "drawing" : `picture-${picture.key}`;
    files[name] = kind === "drawing" ? drawing : picture.blob;
    return { file: name, ...common };
  });
  const request = { parts, top: query.top };
  const where = conditions(query.where);
  if (where.length) request.where = where;
  return { request, files, asked };
}

// -- in the address, so that words and photos can be shared ------------------------------

const SHARED = { text: "q", not: "not", where: "where" };

/** The address' part after #; drawings and pictures are not in it. */
export function toHash(query) {
  const values = new URLSearchParams();
  for (const [field, name] of Object.entries(SHARED)) {
    if (query[field].trim()) values.set(name, query[field].trim());
  }
  if (query.like) values.set("like", query.like.id);
  const changed = Object.entries(query.weights).filter(([kind, w]) => w !== WEIGHTS[kind]);
  if (changed.length) values.set("w", changed.map(([kind, w]) => `${kind}:${w}`).join(","));
  return values.toString();
}

/** A query from such a part. */
export function fromHash(hash) {
  const values = new URLSearchParams(hash.replace(/^#/, ""));
  const query = emptyQuery();
  for (const [field, name] of Object.entries(SHARED)) query[field] = values.get(name) ?? "";
  const like = values.get("like");
  if (like) query.like = { id: like, name: "" };
  for (const pair of (values.get("w") ?? "").split(",")) {
    const [kind, weight] = [pair.split(":")[0], Number(pair.split(":")[1])];
    if (kind in WEIGHTS && weight >= 0 && weight <= 2) query.weights[kind] = weight;
  }
  return query;
}
