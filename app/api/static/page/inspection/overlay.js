// What is drawn over the original: the error map, and the outlines of the regions.

import { svg } from "../dom.js";
import { percent } from "../format.js";
import { seenByModel } from "./placement.js";

// The sum of red and green rises along the service's colour scale; these are its values at 0, 1/4, 1/2, 3/4 and 1.
const SUMS = [0, 103, 243, 391, 507];
const OPAQUE = 0.5; // the place on the scale where the overlay hides the image: of maps in score units the threshold
const SHORTEST = 0.025; // of the part of the scale that is shown above it: twice the threshold
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
  const places = Float32Array.from({ length: data.length / 4 }, (_, pixel) => placeOnScale(data[4 * pixel] + data[4 * pixel + 1]));
  // Yellow is the image's own peak: on the whole scale, weak and strong defects would have one colour each.
  const longest = places.reduce((most, place) => Math.max(most, place - OPAQUE), SHORTEST);
  for (let at = 0; at < data.length; at += 4) {
    const place = places[at / 4];
    const beyond = Math.max(place - OPAQUE, 0) / longest;
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

function placeOnScale(sum) {
  const above = Math.max(SUMS.findIndex((value) => sum <= value), 1);
  const [from, to] = [SUMS[above - 1], SUMS[above]];
  return Math.min((above - 1 + (sum - from) / (to - from)) / (SUMS.length - 1), 1);
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

/** "3 regions; the strongest covers 2.1% of the image." The service draws them at the calibrated threshold. */
export function regionsText(regions, { threshold, card }) {
  if (regions === undefined) return "";
  const above = regions.filter(({ peak }) => peak > threshold);
  const at = threshold < card.threshold ? "the calibrated threshold" : "the threshold";
  if (above.length === 0) return `No region is above ${at}.`;
  const many = above.length === 1 ? "1 region covers" : `${above.length} regions; the strongest covers`;
  return `${many} ${percent(above[0].area)} of the image.${threshold < card.threshold ? ` Boxes are those of ${at}.` : ""}`;
}
