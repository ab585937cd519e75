// A drawing as vectors: what undo, resizing and the exported picture are exact by.
//
// Coordinates and widths are fractions of the square pad's side. A stroke is
// {points: [[x, y, pressure], ...], width, colour, erase}; strokes are never changed once added.

export const WIDTHS = [
  { width: 0.024, name: "Fine" },
  { width: 0.034, name: "Medium" },
  { width: 0.05, name: "Broad" },
  { width: 0.13, name: "Brush" },
];
export const COLOURS = [
  ["#000000", "Black"],
  ["#8d8d92", "Grey"],
  ["#e5342b", "Red"],
  ["#f7901e", "Orange"],
  ["#ffd02e", "Yellow"],
  ["#35a853", "Green"],
  ["#2f7de1", "Blue"],
  ["#8a46c8", "Violet"],
  ["#8a5a33", "Brown"],
];

// A dot of a line drawing is wider than its lines: in OpenMoji's, an eye is three lines wide.
const dotOf = (width) => Math.min(width * 4, width + 0.085);
// Wider strokes are areas: they grow with the drawing, lines keep their width.
const LINE = 0.055;
const MARGIN = 0.09; // around the content, of the exported picture's side
const LARGEST_ZOOM = 5;
const WHOLE = { zoom: 1, x: 0.5, y: 0.5 };
const SCAN = 256; // pixels of the side at which content is looked for
const PASSES = 3; // of fitting: lines do not grow with the zoom, so one is not exact

/** Strokes with undo and redo; `changed` is called after every change. */
export class Drawing {
  constructor(changed = () => {}) {
    this.strokes = [];
    this.past = [];
    this.future = [];
    this.changed = changed;
  }

  set(strokes) {
    this.past.push(this.strokes);
    this.future = [];
    this.strokes = strokes;
    this.changed();
  }

  add(stroke) {
    this.set([...this.strokes, stroke]);
  }

  clear() {
    if (this.strokes.length) this.set([]);
  }

  undo() {
    if (!this.past.length) return;
    this.future.push(this.strokes);
    this.strokes = this.past.pop();
    this.changed();
  }

  redo() {
    if (!this.future.length) return;
    this.past.push(this.strokes);
    this.strokes = this.future.pop();
    this.changed();
  }

  /** Another drawing altogether, with no history; nobody is told. */
  replace(strokes) {
    this.strokes = strokes;
    this.past = [];
    this.future = [];
  }
}

function isDot(points, width) {
  const xs = points.map((point) => point[0]);
  const ys = points.map((point) => point[1]);
  const extent = Math.hypot(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
  return extent < Math.min(width * 0.6, 0.03);
}

/** Draw one stroke; `place` takes pad coordinates to pixels, `scale` a width to pixels. */
export function drawStroke(context, stroke, place, scale) {
  const { points, width, colour, erase } = stroke;
  context.globalCompositeOperation = erase ? "destination-out" : "source-over";
  context.strokeStyle = context.fillStyle = erase ? "#000" : colour;
  context.lineCap = context.lineJoin = "round";
  if (isDot(points, width)) {
    const [x, y] = place(points[points.length - 1]);
    const size = !erase && width < LINE ? dotOf(width) : width;
    context.beginPath();
    context.arc(x, y, scale(size, stroke) / 2, 0, 2 * Math.PI);
    context.fill();
  } else if (points.some((point) => point[2] !== 1)) {
    drawPressed(context, stroke, place, scale);
  } else {
    context.lineWidth = scale(width, stroke);
    context.beginPath();
    smooth(context, points.map(place));
    context.stroke();
  }
  context.globalCompositeOperation = "source-over";
}

// Quadratic curves through the midpoints: no corner where the pointer was sampled.
function smooth(context, points) {
  context.moveTo(...points[0]);
  for (let i = 1; i < points.length - 1; i++) {
    const [x, y] = points[i];
    const [nextX, nextY] = points[i + 1];
    context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  }
  context.lineTo(...points[points.length - 1]);
}

function drawPressed(context, { points, width, ...rest }, place, scale) {
  for (let i = 1; i < points.length; i++) {
    const pressure = (points[i - 1][2] + points[i][2]) / 2;
    context.lineWidth = scale(width * pressure, { width, ...rest });
    context.beginPath();
    context.moveTo(...place(points[i - 1]));
    context.lineTo(...place(points[i]));
    context.stroke();
  }
}

/** Draw strokes as they stand on a pad of `side` pixels, without a ground. */
export function drawAll(context, strokes, side) {
  for (const stroke of strokes) {
    drawStroke(
      context,
      stroke,
      ([x, y]) => [x * side, y * side],
      (width) => width * side,
    );
  }
}

function sheet(side) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  return canvas;
}

/** The box around what is drawn on a square canvas, as fractions of it; null where nothing is. */
function contentBox(canvas) {
  const side = canvas.width;
  const alpha = canvas.getContext("2d").getImageData(0, 0, side, side).data;
  let [left, top, right, bottom] = [side, side, -1, -1];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      if (alpha[(y * side + x) * 4 + 3] < 64) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
    }
  }
  return right < 0 ? null : [left, top, right + 1, bottom + 1].map((value) => value / side);
}

/** Whether nothing is seen of strokes: there are none, or all was erased. */
export function isBlank(strokes) {
  if (!strokes.some((stroke) => !stroke.erase)) return true;
  if (!strokes.some((stroke) => stroke.erase)) return false;
  return !contentBox(drawZoomed(strokes, SCAN, WHOLE, { willReadFrequently: true }));
}

function drawZoomed(strokes, side, { zoom, x, y }, options) {
  const canvas = sheet(side);
  const context = canvas.getContext("2d", options);
  const place = (point) => [
    ((point[0] - x) * zoom + 0.5) * side,
    ((point[1] - y) * zoom + 0.5) * side,
  ];
  const scale = (width, stroke) => width * side * (stroke.erase || stroke.width > LINE ? zoom : 1);
  for (const stroke of strokes) drawStroke(context, stroke, place, scale);
  return canvas;
}

/**
 * The picture that is asked with: the content in the middle of a white square, whatever its size
 * and place on the pad. Lines keep their width, about 3 % of the side, as in the sketches that the
 * model was trained on; areas and erased ground grow with the drawing.
 *
 * @returns A canvas, or null where nothing is drawn.
 */
export function drawQuery(strokes, side = 512) {
  const view = { ...WHOLE };
  for (let pass = 0; pass < PASSES; pass++) {
    const box = contentBox(drawZoomed(strokes, SCAN, view, { willReadFrequently: true }));
    if (!box) return null;
    const [left, top, right, bottom] = box;
    view.x += ((left + right) / 2 - 0.5) / view.zoom;
    view.y += ((top + bottom) / 2 - 0.5) / view.zoom;
    const fit = (1 - 2 * MARGIN) / Math.max(right - left, bottom - top);
    view.zoom = Math.min(view.zoom * fit, LARGEST_ZOOM);
  }
  const canvas = drawZoomed(strokes, side, view);
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, side, side);
  return canvas;
}

/** {@link drawQuery} as PNG bytes; null where nothing is drawn. */
export async function queryPicture(strokes) {
  const canvas = drawQuery(strokes);
  return canvas && new Promise((done) => canvas.toBlob(done, "image/png"));
}
