// What is drawn over the original: the error map, and the outlines of the regions.

import { svg } from "../dom.js";
import { percent } from "../format.js";
import { seenByModel } from "./placement.js";

// The red channel of the service's colour scale rises along it; these are its values at 0, 1/4, 1/2, 3/4 and 1.
const REDS = [0, 87, 188, 249, 252];
const OPAQUE = 0.5; // the place on the scale where the overlay hides the image: of maps in score units the threshold
const [RED, YELLOW] = [
  [255, 56, 0],
  [255, 225, 70],
];

/** Draws the map into the canvas, from transparent over red to yellow, and lays the canvas over the image. */
export async function drawMap(canvas, map, size, input) {
  const bitmap = await createImageBitmap(map);
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = pixels;
  for (let at = 0; at < data.length; at += 4) {
    const place = placeOnScale(data[at]);
    const beyond = Math.max(place - OPAQUE, 0) / (1 - OPAQUE);
    for (let channel = 0; channel < 3; channel++) data[at + channel] = RED[channel] + beyond * (YELLOW[channel] - RED[channel]);
    data[at + 3] = 255 * Math.min(place / OPAQUE, 1);
  }
  context.putImageData(pixels, 0, 0);
  const [x, y, width, height] = seenByModel(size, input);
  Object.assign(canvas.style, {
    left: `${(100 * x) / size.width}%`,
    top: `${(100 * y) / size.height}%`,
    width: `${(100 * width) / size.width}%`,
    height: `${(100 * height) / size.height}%`,
  });
}

function placeOnScale(red) {
  const above = Math.max(REDS.findIndex((value) => red <= value), 1);
  const [from, to] = [REDS[above - 1], REDS[above]];
  return Math.min((above - 1 + (red - from) / (to - from)) / (REDS.length - 1), 1);
}

/** The outlines of the regions, in pixels of the original. */
export function drawRegions(drawing, regions, { width, height }) {
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.replaceChildren(
    ...regions.flatMap(({ box: [x, y, boxWidth, boxHeight], polygon }) => [
      svg("rect", { x, y, width: boxWidth, height: boxHeight, class: "halo" }),
      svg("rect", { x, y, width: boxWidth, height: boxHeight, class: "box" }),
      ...(polygon?.length > 2 ? [svg("polygon", { points: polygon.map((point) => point.join(",")).join(" "), class: "outline" })] : []),
    ]),
  );
}

/** "3 regions; the strongest covers 2.1% of the image." */
export function regionsText(regions) {
  if (regions === undefined) return "";
  if (regions.length === 0) return "No region is above the threshold.";
  const many = regions.length === 1 ? "1 region covers" : `${regions.length} regions; the strongest covers`;
  return `${many} ${percent(regions[0].area)} of the image.`;
}
