// The drawing pad: mouse, finger or pen, white on black like the MNIST digits.

import { byId } from "../dom.js";

const PEN = 0.085; // stroke width as a fraction of the pad
const EXPORT_SIZE = 280; // pixels
// MNIST framing: the digit with its strokes fits 20 of 28 pixels, the centre of mass is in the middle.
const FRAME = 20 / 28;
const EXPORT_PEN = 2.3 / 28;
const MAX_SCALE = 3;
const PAUSE_MS = 150; // delay before scoring, so that strokes in quick succession are scored once

export class DrawingPad {
  /** `onDraw` gets a PNG blob after each change, or null if no stroke is left; `onClear` is called by `clear`. */
  constructor(canvas, { onDraw, onClear }) {
    this.canvas = canvas;
    this.onDraw = onDraw;
    this.onClear = onClear;
    this.strokes = [];
    this.timer = 0;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#extend(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#end(event));
    new ResizeObserver(() => this.#fit()).observe(canvas);
    document.addEventListener("keydown", (event) => {
      if (event.key === "z" && (event.ctrlKey || event.metaKey) && this.strokes.length > 0) {
        event.preventDefault();
        this.undo();
      }
    });
  }

  undo() {
    this.strokes.pop();
    this.#changed();
  }

  clear() {
    clearTimeout(this.timer);
    this.strokes = [];
    this.#render();
    this.onClear();
  }

  #begin(event) {
    if (event.button !== 0 || this.pointer !== undefined) return;
    event.preventDefault();
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    clearTimeout(this.timer);
    this.strokes.push([this.#position(event)]);
    this.#render();
  }

  #extend(event) {
    if (event.pointerId !== this.pointer) return;
    const coalesced = event.getCoalescedEvents?.() ?? [];
    this.strokes.at(-1).push(...(coalesced.length > 0 ? coalesced : [event]).map((each) => this.#position(each)));
    this.#render();
  }

  #end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = undefined;
    this.#changed();
  }

  #position(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  #changed() {
    this.#render();
    clearTimeout(this.timer);
    if (this.strokes.length === 0) this.onDraw(null);
    else this.timer = setTimeout(async () => this.onDraw(await toPng(this.strokes)), PAUSE_MS);
  }

  #fit() {
    this.canvas.width = this.canvas.height = Math.round(this.canvas.clientWidth * devicePixelRatio);
    this.#render();
  }

  #render() {
    const size = this.canvas.width;
    draw(this.canvas.getContext("2d"), this.strokes, { size, pen: PEN, scale: 1, left: 0, top: 0 });
    byId("pad-hint").hidden = this.strokes.length > 0;
    for (const id of ["undo", "clear"]) byId(id).disabled = this.strokes.length === 0;
  }
}

/** The drawing as a PNG file in MNIST framing, independent of its size and position on the pad. */
async function toPng(strokes) {
  const canvas = new OffscreenCanvas(EXPORT_SIZE, EXPORT_SIZE);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const points = strokes.flat();
  const [left, right] = [Math.min(...points.map(({ x }) => x)), Math.max(...points.map(({ x }) => x))];
  const [top, bottom] = [Math.min(...points.map(({ y }) => y)), Math.max(...points.map(({ y }) => y))];
  const scale = Math.min((FRAME - EXPORT_PEN) / Math.max(right - left, bottom - top), MAX_SCALE);
  const view = {
    size: EXPORT_SIZE,
    pen: EXPORT_PEN,
    scale,
    left: (left + right) / 2 - 0.5 / scale,
    top: (top + bottom) / 2 - 0.5 / scale,
  };
  draw(context, strokes, view);
  const centre = centreOfMass(context.getImageData(0, 0, EXPORT_SIZE, EXPORT_SIZE));
  draw(context, strokes, {
    ...view,
    left: view.left + (centre.x - 0.5) / scale,
    top: view.top + (centre.y - 0.5) / scale,
  });
  return canvas.convertToBlob({ type: "image/png" });
}

function centreOfMass({ data, width, height }) {
  let [mass, x, y] = [0, 0, 0];
  for (let pixel = 0; pixel < width * height; pixel++) {
    const intensity = data[4 * pixel];
    mass += intensity;
    x += intensity * ((pixel % width) + 0.5);
    y += intensity * (Math.floor(pixel / width) + 0.5);
  }
  return { x: x / mass / width, y: y / mass / height };
}

/** Draws smooth strokes; `left` and `top` are the pad coordinates of the canvas's top left corner. */
function draw(context, strokes, { size, pen, scale, left, top }) {
  context.fillStyle = "#000";
  context.fillRect(0, 0, size, size);
  context.strokeStyle = "#fff";
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = pen * size;
  for (const stroke of strokes) {
    const points = stroke.map(({ x, y }) => [(x - left) * scale * size, (y - top) * scale * size]);
    context.beginPath();
    context.moveTo(...points[0]);
    for (let index = 1; index < points.length; index++) {
      const [[fromX, fromY], [toX, toY]] = [points[index - 1], points[index]];
      context.quadraticCurveTo(fromX, fromY, (fromX + toX) / 2, (fromY + toY) / 2);
    }
    context.lineTo(...points.at(-1));
    context.stroke();
  }
}
