// What an empty page offers to try: small drawings as strokes, and phrases.

import { WIDTHS, drawAll } from "./ink.js";

const LINE = WIDTHS[1].width;

const PIECES = 12; // of a straight line, so that its corners stay sharp

const curve = (...points) => ({
  points: points.map(([x, y]) => [x, y, 1]),
  width: LINE,
  colour: "#000000",
  erase: false,
});
const dot = (x, y) => curve([x, y]);
const line = (...corners) =>
  curve(
    ...corners.slice(1).flatMap(([x, y], i) =>
      Array.from({ length: PIECES }, (_, k) => {
        const [fromX, fromY] = corners[i];
        return [fromX + ((x - fromX) * k) / PIECES, fromY + ((y - fromY) * k) / PIECES];
      }),
    ),
    corners[corners.length - 1],
  );
// An arc around (x, y) from one angle to another, in turns clockwise from the right.
const arc = (x, y, rx, ry, from, to) => {
  const count = Math.max(8, Math.round(Math.abs(to - from) * 48));
  return curve(
    ...Array.from({ length: count + 1 }, (_, i) => {
      const angle = (from + ((to - from) * i) / count) * 2 * Math.PI;
      return [x + rx * Math.cos(angle), y + ry * Math.sin(angle)];
    }),
  );
};

const DOODLES = [
  {
    name: "A smile",
    strokes: [
      arc(0.5, 0.5, 0.36, 0.37, -0.25, 0.77),
      dot(0.38, 0.42),
      dot(0.63, 0.42),
      arc(0.5, 0.53, 0.18, 0.15, 0.45, 0.05),
    ],
  },
  {
    name: "A house",
    strokes: [
      line([0.16, 0.48], [0.5, 0.16], [0.84, 0.48]),
      line([0.24, 0.42], [0.24, 0.84], [0.76, 0.84], [0.76, 0.42]),
      line([0.43, 0.84], [0.43, 0.6], [0.58, 0.6], [0.58, 0.84]),
    ],
  },
  {
    name: "A heart",
    strokes: [
      curve(
        [0.5, 0.82],
        [0.28, 0.62],
        [0.17, 0.47],
        [0.16, 0.34],
        [0.24, 0.24],
        [0.35, 0.23],
        [0.45, 0.29],
        [0.5, 0.38],
        [0.55, 0.29],
        [0.65, 0.23],
        [0.76, 0.24],
        [0.84, 0.34],
        [0.83, 0.47],
        [0.72, 0.62],
        [0.5, 0.82],
      ),
    ],
  },
  {
    name: "A mug",
    strokes: [
      line([0.2, 0.3], [0.22, 0.78], [0.62, 0.78], [0.64, 0.3], [0.2, 0.3]),
      arc(0.64, 0.52, 0.17, 0.14, -0.22, 0.23),
    ],
  },
  {
    name: "A tree",
    strokes: [
      arc(0.5, 0.37, 0.27, 0.25, 0.2, 1.25),
      line([0.44, 0.6], [0.43, 0.86], [0.58, 0.86], [0.56, 0.6]),
    ],
  },
];

const PHRASES = ["a red car", "something to drink", "a cat", "snow on a mountain"];

const SIDE = 144; // pixels, of a small drawing
const $ = (id) => document.getElementById(id);

/** Fill the empty page; `drawn(strokes)` and `said(phrase)` are called with what is chosen. */
export function offerExamples({ drawn, said }) {
  for (const { name, strokes } of DOODLES) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    drawAll(canvas.getContext("2d"), strokes, SIDE);
    offer($("doodles"), name, canvas, () => drawn(strokes));
  }
  for (const phrase of PHRASES) {
    offer($("phrases"), phrase, document.createTextNode(phrase), () => said(phrase));
  }
}

function offer(list, name, content, chosen) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", name);
  button.append(content);
  button.addEventListener("click", chosen);
  item.append(button);
  list.append(item);
}
