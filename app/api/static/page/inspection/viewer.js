// The big picture: the original in its own proportions, with the map over it. Zooms by wheel, pinch, double click, keys.

import { byId } from "../dom.js";
import { drawVeil } from "./interest.js";
import { drawMap, drawRegions } from "./overlay.js";

const MOST = 40; // times the size that fits the stage
const STEP = 1.3;
const DOUBLE_CLICK = 4;
const PIXELATED = 3; // screen pixels per image pixel, from which single pixels are shown as squares

export class Viewer {
  #shown = [];
  #loaded = Promise.resolve(false); // whether its picture is shown
  #size = null; // of the original, in its own pixels
  #urls = [];
  #view = { scale: 1, x: 0, y: 0 };
  #pointers = new Map();

  constructor() {
    this.stage = byId("stage");
    this.plane = byId("plane");
    this.picture = byId("original");
    this.map = byId("map");
    this.veil = byId("veil");
    this.regions = byId("regions");
    this.#listen();
    new ResizeObserver(() => this.#layout()).observe(this.stage);
  }

  /** Shows an image, or nothing. Zoom and place stay as they are while the same file is shown. */
  async show(image, model) {
    this.stage.dataset.state = image?.state ?? "empty";
    const wanted = [image?.blob, image?.result, model, model.threshold];
    if (wanted.every((each, index) => each === this.#shown[index])) return;
    const isSameFile = image?.blob === this.#shown[0];
    this.#shown = wanted;
    if (!isSameFile) this.#clear();
    if (!image) return;
    if (!isSameFile) this.#loaded = this.#load(image.blob);
    const { pictures = {}, regions = [] } = image.result ?? {};
    // The browser does not know all formats that the service reads.
    if (!(await this.#loaded) && pictures.input) this.#loaded = this.#load(pictures.input);
    if (!(await this.#loaded) || this.#shown !== wanted) return; // another image was chosen meanwhile
    this.picture.alt = `Picture of ${image.name}`;
    drawRegions(this.regions, regions.filter(({ peak }) => peak > model.threshold), this.#size);
    if (pictures.error_map) await drawMap(this.map, pictures.error_map, this.#size, model.card.input);
    if (this.#shown !== wanted) return;
    this.map.hidden = !pictures.error_map; // shown where it belongs, and never moved
    const isDimmed = await drawVeil(this.veil, model.interest, this.#size, model.card.input);
    if (this.#shown !== wanted) return;
    this.veil.hidden = byId("veil-hint").hidden = !isDimmed;
  }

  /** Shows or hides what lies over the picture. */
  toggleMarks() {
    byId("marks").ariaPressed = this.plane.classList.toggle("bare");
  }

  zoom(factor, at = this.#centre()) {
    const { scale, x, y } = this.#view;
    const next = Math.min(Math.max(scale * factor, 1), MOST);
    this.#move({ scale: next, x: at.x - ((at.x - x) * next) / scale, y: at.y - ((at.y - y) * next) / scale });
  }

  fit() {
    this.#move({ scale: 1, x: 0, y: 0 });
  }

  #clear() {
    this.#urls.forEach((url) => URL.revokeObjectURL(url));
    this.#urls = [];
    this.#size = null;
    this.#view = { scale: 1, x: 0, y: 0 };
    this.plane.hidden = true;
    this.map.hidden = true;
    this.veil.hidden = byId("veil-hint").hidden = true;
    this.picture.removeAttribute("src");
    this.picture.alt = "";
    this.stage.classList.remove("filled");
  }

  /** Whether the browser could decode the file and shows it. */
  async #load(blob) {
    const url = URL.createObjectURL(blob);
    this.#urls.push(url);
    this.picture.src = url;
    try {
      await this.picture.decode();
    } catch {
      return false;
    }
    if (this.picture.src !== url) return false; // another image was chosen meanwhile
    this.#size = { width: this.picture.naturalWidth, height: this.picture.naturalHeight };
    this.plane.hidden = false;
    this.stage.classList.add("filled");
    this.#layout();
    return true;
  }

  /** The plane has the image's proportions and fits into the stage; a transformation enlarges and moves it. */
  #layout() {
    if (this.#size === null) return;
    const { clientWidth, clientHeight } = this.stage;
    const fitting = Math.min(clientWidth / this.#size.width, clientHeight / this.#size.height);
    const [width, height] = [this.#size.width * fitting, this.#size.height * fitting];
    Object.assign(this.plane.style, {
      width: `${width}px`,
      height: `${height}px`,
      left: `${(clientWidth - width) / 2}px`,
      top: `${(clientHeight - height) / 2}px`,
    });
    this.fitting = fitting;
    this.#move(this.#view);
  }

  /** Keeps the picture over the stage. */
  #move({ scale, x, y }) {
    const { offsetLeft: left, offsetTop: top, clientWidth: width, clientHeight: height } = this.plane;
    const within = (value, before, size, room) =>
      size * scale <= room
        ? (room - size * scale) / 2 - before
        : Math.min(Math.max(value, room - before - size * scale), -before);
    this.#view = {
      scale,
      x: scale === 1 ? 0 : within(x, left, width, this.stage.clientWidth),
      y: scale === 1 ? 0 : within(y, top, height, this.stage.clientHeight),
    };
    this.plane.style.transform = `translate(${this.#view.x}px, ${this.#view.y}px) scale(${scale})`;
    this.stage.classList.toggle("zoomed", scale > 1);
    this.picture.classList.toggle("pixelated", (this.fitting ?? 1) * scale >= PIXELATED);
    byId("zoom-fit").textContent = `${Math.round(100 * (this.fitting ?? 1) * scale)}%`;
  }

  #listen() {
    this.stage.addEventListener(
      "wheel",
      (event) => {
        if (this.#size === null) return;
        event.preventDefault();
        this.zoom(STEP ** (-event.deltaY / 100), this.#within(event));
      },
      { passive: false },
    );
    this.stage.addEventListener("dblclick", (event) => {
      if (this.#view.scale > 1) this.fit();
      else this.zoom(DOUBLE_CLICK, this.#within(event));
    });
    this.stage.addEventListener("pointerdown", (event) => {
      this.#pointers.set(event.pointerId, event);
      if (this.#view.scale > 1) this.stage.setPointerCapture(event.pointerId);
    });
    this.stage.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
      this.stage.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    }
    byId("zoom-in").addEventListener("click", () => this.zoom(STEP ** 2));
    byId("zoom-out").addEventListener("click", () => this.zoom(STEP ** -2));
    byId("zoom-fit").addEventListener("click", () => this.fit());
    byId("marks").addEventListener("click", () => this.toggleMarks());
    byId("opacity").addEventListener("input", () => this.#applyOpacity());
    byId("boxes").addEventListener("change", () => this.regions.toggleAttribute("hidden", !byId("boxes").checked));
    this.#applyOpacity();
  }

  #applyOpacity() {
    this.map.style.opacity = byId("opacity").value / 100;
  }

  /** One pointer moves the picture, two also change its size. */
  #drag(event) {
    const before = this.#pointers.get(event.pointerId);
    if (before === undefined || this.#size === null) return;
    const other = [...this.#pointers.values()].find(({ pointerId }) => pointerId !== event.pointerId);
    this.#pointers.set(event.pointerId, event);
    if (other) {
      const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      const [from, to] = [distance(before), distance(event)];
      if (from > 0) this.zoom(to / from, this.#within(other));
    } else if (this.#view.scale > 1) {
      const { scale, x, y } = this.#view;
      this.#move({ scale, x: x + event.clientX - before.clientX, y: y + event.clientY - before.clientY });
    }
  }

  /** A position relative to the plane's place at scale 1. */
  #within({ clientX, clientY }) {
    const box = this.stage.getBoundingClientRect();
    return { x: clientX - box.left - this.plane.offsetLeft, y: clientY - box.top - this.plane.offsetTop };
  }

  #centre() {
    return { x: this.plane.clientWidth / 2, y: this.plane.clientHeight / 2 };
  }
}
