// Draws a region of interest over a picture and downloads it as a mask for training: white counts, black does not.

import { element } from "../dom.js";
import { saveAs } from "../images/csv.js";
import { titleBar } from "./dialog.js";

const LONGEST_SIDE = 1200; // of the drawing; the mask has the size of the picture
const HALF = 128; // of the shade
const SIZES = { min: 1, max: 40, value: 10 }; // of the brush, in percent of the picture's shorter side

/** Opens the editor for the picture that an <img> shows. */
export function drawMask(dialog, picture, model) {
  const { naturalWidth: width, naturalHeight: height } = picture;
  if (!width) return;
  const scale = LONGEST_SIDE / Math.max(width, height);
  const canvas = element("canvas", { width: Math.round(width * scale), height: Math.round(height * scale), role: "img", "aria-label": "Drawing area for mouse, finger or pen" });
  const ring = element("span", { class: "brush", hidden: true });
  const size = element("input", { type: "range", ...SIZES });
  const erase = element("input", { type: "checkbox" });
  const drawing = new MaskDrawing(canvas, ring, () => ({ size: size.value / 100, erases: erase.checked }));
  const button = (title, onclick, kind = null) => element("button", { type: "button", class: kind, onclick }, title);
  const file = `${model.name}-mask.png`;
  dialog.replaceChildren(
    titleBar(dialog, "Region of interest"),
    element("p", { class: "muted" }, "Paint over what counts. The rest is left out when a model is trained with this mask."),
    element("div", { class: "mask-stage" }, element("img", { src: picture.src, alt: "" }), canvas, ring),
    element(
      "div",
      { class: "bar" },
      element("label", {}, "Brush ", size),
      element("label", { class: "check" }, erase, "Erase"),
      button("Undo", () => drawing.undo()),
      button("All", () => drawing.fill(true)),
      button("None", () => drawing.fill(false)),
      button("Download PNG", async () => saveAs(file, "image/png", await drawing.mask(width, height)), "primary"),
    ),
    element("p", { class: "muted" }, "To train with it: ", element("code", {}, `python -m training --data … --mask ${file}`)),
  );
  dialog.showModal();
}

/** Shade lies over what does not count; the brush takes it away. */
class MaskDrawing {
  #strokes = []; // of points, or a filling of everything
  #pointer = null;

  constructor(canvas, ring, brush) {
    Object.assign(this, { canvas, ring, brush });
    this.context = canvas.getContext("2d");
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (this.#pointer = null));
    canvas.addEventListener("pointerleave", () => (ring.hidden = true));
    this.#render();
  }

  undo() {
    this.#strokes.pop();
    this.#render();
  }

  fill(counts) {
    this.#strokes.push({ fills: true, erases: !counts });
    this.#render();
  }

  /** The mask as a PNG file of the given size: white counts. */
  async mask(width, height) {
    const mask = new OffscreenCanvas(width, height);
    const context = mask.getContext("2d");
    context.drawImage(this.canvas, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const value = pixels.data[at + 3] < HALF ? 255 : 0;
      pixels.data.set([value, value, value, 255], at);
    }
    context.putImageData(pixels, 0, 0);
    return mask.convertToBlob({ type: "image/png" });
  }

  #begin(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#pointer = event.pointerId;
    const { size, erases } = this.brush();
    this.#strokes.push({ erases, width: size * Math.min(this.canvas.width, this.canvas.height), points: [this.#at(event)] });
    this.#render();
  }

  #move(event) {
    this.#showRing(event);
    if (event.pointerId !== this.#pointer) return;
    this.#strokes.at(-1).points.push(this.#at(event));
    this.#render();
  }

  #showRing({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    const width = this.brush().size * Math.min(box.width, box.height);
    this.ring.hidden = false;
    Object.assign(this.ring.style, {
      width: `${width}px`,
      height: `${width}px`,
      left: `${this.canvas.offsetLeft + clientX - box.left - width / 2}px`,
      top: `${this.canvas.offsetTop + clientY - box.top - width / 2}px`,
    });
  }

  #at({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return [((clientX - box.left) / box.width) * this.canvas.width, ((clientY - box.top) / box.height) * this.canvas.height];
  }

  #render() {
    const { context, canvas } = this;
    context.globalCompositeOperation = "source-over";
    context.fillRect(0, 0, canvas.width, canvas.height);
    for (const { fills, erases, width, points } of this.#strokes) {
      context.globalCompositeOperation = erases ? "source-over" : "destination-out";
      if (fills) context.fillRect(0, 0, canvas.width, canvas.height);
      else stroke(context, width, points);
    }
  }
}

function stroke(context, width, points) {
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...points[0]);
  for (const point of points) context.lineTo(...point);
  context.stroke();
}
