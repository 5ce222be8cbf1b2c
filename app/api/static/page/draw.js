// The drawing pad: strokes of mouse, finger or pen, white on black, as the digits that models learn from.

const PEN = 0.085; // width of a stroke as a share of the pad
const EXPORT = 280;
// As MNIST frames its digits: 20 of 28 pixels, strokes included, the centre of mass in the middle.
const FRAME = 20 / 28;
const EXPORT_PEN = 2.3 / 28;
const MOST_ENLARGED = 3;
const PAUSE_MS = 150; // between a stroke's end and scoring, so that a second stroke joins the first

export class Pad {
  /** `onDraw` gets a PNG blob after each change, or null when nothing is left; `onNew` hears of a cleared pad. */
  constructor(canvas, { onDraw, onNew }) {
    this.canvas = canvas;
    this.onDraw = onDraw;
    this.onNew = onNew;
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
    this.onNew();
  }

  #begin(event) {
    if (event.button !== 0 || this.pointer !== undefined) return;
    event.preventDefault();
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    clearTimeout(this.timer);
    this.strokes.push([this.#place(event)]);
    this.#render();
  }

  #extend(event) {
    if (event.pointerId !== this.pointer) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    this.strokes.at(-1).push(...(passed.length > 0 ? passed : [event]).map((each) => this.#place(each)));
    this.#render();
  }

  #end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = undefined;
    this.#changed();
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  #changed() {
    this.#render();
    clearTimeout(this.timer);
    if (this.strokes.length === 0) this.onDraw(null);
    else this.timer = setTimeout(async () => this.onDraw(await picture(this.strokes)), PAUSE_MS);
  }

  #fit() {
    this.canvas.width = this.canvas.height = Math.round(this.canvas.clientWidth * devicePixelRatio);
    this.#render();
  }

  #render() {
    const size = this.canvas.width;
    draw(this.canvas.getContext("2d"), this.strokes, { size, pen: PEN, scale: 1, left: 0, top: 0 });
    document.getElementById("pad-hint").hidden = this.strokes.length > 0;
    for (const id of ["undo", "clear"]) document.getElementById(id).disabled = this.strokes.length === 0;
  }
}

/** The drawing as a PNG file, framed as MNIST frames its digits, whatever its size and place on the pad. */
async function picture(strokes) {
  const canvas = new OffscreenCanvas(EXPORT, EXPORT);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const points = strokes.flat();
  const [left, right] = [Math.min(...points.map(({ x }) => x)), Math.max(...points.map(({ x }) => x))];
  const [top, bottom] = [Math.min(...points.map(({ y }) => y)), Math.max(...points.map(({ y }) => y))];
  const scale = Math.min((FRAME - EXPORT_PEN) / Math.max(right - left, bottom - top), MOST_ENLARGED);
  const view = {
    size: EXPORT,
    pen: EXPORT_PEN,
    scale,
    left: (left + right) / 2 - 0.5 / scale,
    top: (top + bottom) / 2 - 0.5 / scale,
  };
  draw(context, strokes, view);
  const centre = centreOfMass(context.getImageData(0, 0, EXPORT, EXPORT));
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
    const ink = data[4 * pixel];
    mass += ink;
    x += ink * ((pixel % width) + 0.5);
    y += ink * (Math.floor(pixel / width) + 0.5);
  }
  return { x: x / mass / width, y: y / mass / height };
}

/** Draws smooth strokes; `left` and `top` are the place on the pad that comes into the corner. */
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
