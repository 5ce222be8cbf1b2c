// A veil over the parts of the original that do not count: outside of the region of interest, or cut off by the fit.

import { seenByModel } from "./placement.js";

const LONGEST = 1024; // pixels of the veil
const VEIL = "rgb(118 116 112 / 0.66)"; // grey: it dims bright and dark images alike

/**
 * Draws the veil over an image of some size. Returns false, and draws nothing, if all of it counts.
 * `mask` is a PNG file at the model's input size in which white counts, or null.
 */
export async function drawVeil(canvas, mask, size, input) {
  const [x, y, width, height] = seenByModel(size, input);
  const isCut = x > 0 || y > 0 || width < size.width || height < size.height;
  if (mask === null && !isCut) return false;
  const bitmap = mask && (await createImageBitmap(mask));
  const scale = Math.min(LONGEST / Math.max(size.width, size.height), 1);
  canvas.width = Math.max(Math.round(size.width * scale), 1);
  canvas.height = Math.max(Math.round(size.height * scale), 1);
  const [across, down] = [canvas.width / size.width, canvas.height / size.height];
  const context = canvas.getContext("2d");
  context.fillStyle = VEIL;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "destination-out";
  context.fillStyle = "#000";
  context.imageSmoothingEnabled = false; // the border is that of whole pixels of the input
  const place = [x * across, y * down, width * across, height * down];
  if (bitmap === null) context.fillRect(...place.map(Math.round));
  else context.drawImage(whiteAsOpaque(bitmap), ...place);
  return true;
}

function whiteAsOpaque(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at];
  context.putImageData(pixels, 0, 0);
  return canvas;
}
