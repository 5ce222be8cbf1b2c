// Small pictures of the rows, made when a row becomes visible, one at a time. Rows out of sight hold none.

const SIDE = 96; // pixels; rows show them at 40, also on dense screens
const MARGIN = "600px"; // rows this far outside of the window count as visible

export class Thumbnails {
  #images = new Map(); // <img> → image
  #visible = new Set();
  #making = Promise.resolve();

  constructor() {
    this.observer = new IntersectionObserver((entries) => entries.forEach((entry) => this.#seen(entry)), { rootMargin: MARGIN });
  }

  /** Shows the thumbnail of an image in an <img> for as long as that is visible. */
  show(img, image) {
    this.#images.set(img, image);
    this.observer.observe(img);
    if (this.#visible.has(img)) this.#request(img);
  }

  forget(img) {
    this.observer.unobserve(img);
    this.#images.delete(img);
    this.#visible.delete(img);
    empty(img);
  }

  #seen({ target, isIntersecting }) {
    if (isIntersecting) {
      this.#visible.add(target);
      this.#request(target);
    } else {
      this.#visible.delete(target);
      empty(target);
    }
  }

  #request(img) {
    this.#making = this.#making.then(() => this.#fill(img));
  }

  async #fill(img) {
    const image = this.#images.get(img);
    if (!image || !this.#visible.has(img)) return;
    const blob = image.blob;
    image.thumbnail ??= (await shrink(blob)) ?? image.result?.pictures.input ?? null;
    if (image.thumbnail === null || image.blob !== blob || !this.#visible.has(img)) return;
    empty(img);
    img.src = URL.createObjectURL(image.thumbnail);
  }
}

function empty(img) {
  if (img.src) URL.revokeObjectURL(img.src);
  img.removeAttribute("src");
}

/** A small PNG file of an image, or null if the browser cannot decode it. */
async function shrink(blob) {
  try {
    const whole = await createImageBitmap(blob);
    const scale = Math.min(SIDE / whole.width, SIDE / whole.height, 1);
    const canvas = new OffscreenCanvas(Math.max(whole.width * scale, 1), Math.max(whole.height * scale, 1));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(whole, 0, 0, canvas.width, canvas.height);
    whole.close();
    return await canvas.convertToBlob({ type: "image/webp", quality: 0.8 });
  } catch {
    return null;
  }
}
