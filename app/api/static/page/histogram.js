// The histogram of calibration scores on a logarithmic axis, the threshold, and where each picture falls.

import { svg } from "./dom.js";

const HEIGHT = 172;
const TOP = 30;
const BASE = 146; // the axis
const BINS = 56;
const LEFT_ROOM = 1.3; // how far the axis runs beyond the calibration scores, as a factor
const RIGHT_ROOM = 4;

export class Histogram {
  #shown = null;

  constructor(place) {
    this.place = place;
    this.drawing = svg("svg", { height: HEIGHT, role: "img" });
    place.append(this.drawing);
    new ResizeObserver(() => this.#draw()).observe(place);
  }

  /** Takes over a model's scores. */
  calibrate(model) {
    const positive = model.scores.filter((score) => score > 0);
    this.low = (positive[0] ?? 1) / LEFT_ROOM;
    this.high = (positive.at(-1) ?? 1) * RIGHT_ROOM;
    this.counts = new Array(BINS).fill(0);
    for (const score of model.scores) this.counts[Math.min(Math.floor(this.#share(score) * BINS), BINS - 1)] += 1;
  }

  show(pictures, selected, model) {
    this.#shown = { pictures, selected, model };
    this.#draw();
  }

  /** Where a score lies on the axis, from 0 to 1; what lies beyond stays at its end. */
  #share(score) {
    const share = Math.log(Math.max(score, this.low) / this.low) / Math.log(this.high / this.low);
    return Math.min(Math.max(share, 0), 1);
  }

  #draw() {
    if (this.#shown === null) return;
    const { pictures, selected, model } = this.#shown;
    const width = this.place.clientWidth;
    const x = (score) => 1 + this.#share(score) * (width - 2);
    const line = x(model.threshold);
    const bars = this.#bars(width);
    this.drawing.setAttribute("width", width);
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.drawing.setAttribute("aria-label", describe(selected, model));
    this.drawing.replaceChildren(
      svg(
        "defs",
        {},
        svg("clipPath", { id: "below" }, svg("rect", { x: 0, y: 0, width: line, height: HEIGHT })),
        svg("clipPath", { id: "above" }, svg("rect", { x: line, y: 0, width: Math.max(width - line, 0), height: HEIGHT })),
      ),
      svg("path", { d: bars, class: "bars", "clip-path": "url(#below)" }),
      svg("path", { d: bars, class: "bars alarms", "clip-path": "url(#above)" }),
      svg("line", { x1: 0, x2: width, y1: BASE, y2: BASE, class: "axis" }),
      ...this.#ticks(x),
      rug(pictures, x, (score) => score <= model.threshold, "rug"),
      rug(pictures, x, (score) => score > model.threshold, "rug alarm"),
      svg("line", { x1: line, x2: line, y1: TOP - 12, y2: BASE, class: "threshold" }),
      ...sides(line, width),
      ...(selected?.result ? marker(x(selected.result.score), selected.result.score > model.threshold) : []),
    );
  }

  #bars(width) {
    const tallest = Math.max(...this.counts);
    const step = (width - 2) / BINS;
    return this.counts
      .map((count, bin) => [1 + bin * step, ((BASE - TOP) * count) / tallest])
      .filter(([, height]) => height > 0)
      .map(([left, height]) => `M${left} ${BASE}v${-Math.max(height, 1.5)}h${step - 1}V${BASE}z`)
      .join("");
  }

  #ticks(x) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(this.low)); power <= Math.log10(this.high); power++) {
      ticks.push(...[1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
    }
    return ticks
      .filter((tick) => tick > this.low * 1.15 && tick < this.high / 1.15)
      .flatMap((tick) => [
        svg("line", { x1: x(tick), x2: x(tick), y1: BASE, y2: BASE + 4, class: "axis" }),
        svg("text", { x: x(tick), y: BASE + 18, "text-anchor": "middle" }, String(tick)),
      ]);
  }
}

/** A short line for each picture. */
function rug(pictures, x, belongs, kind) {
  const scores = pictures.flatMap(({ result }) => (result && belongs(result.score) ? [result.score] : []));
  return svg("path", { d: scores.map((score) => `M${x(score)} ${BASE}v-9`).join(""), class: kind });
}

function sides(line, width) {
  const label = (x, anchor, words, kind) => svg("text", { x, y: TOP - 14, "text-anchor": anchor, class: kind }, words);
  return [
    ...(line > 70 ? [label(line - 8, "end", "normal", "side")] : []),
    ...(width - line > 80 ? [label(line + 8, "start", "anomaly", "side alarm")] : []),
  ];
}

function marker(x, isAnomaly) {
  return [
    svg("line", { x1: x, x2: x, y1: TOP + 8, y2: BASE, class: isAnomaly ? "pin alarm" : "pin" }),
    svg("circle", { cx: x, cy: TOP + 8, r: 6, class: isAnomaly ? "pin alarm" : "pin" }),
  ];
}

function describe(selected, model) {
  const where = selected?.result ? ` ${selected.name} scores ${model.number(selected.result.score)}.` : "";
  return (
    `Histogram of the scores of ${model.scores.length} normal pictures that the model had not seen; ` +
    `the threshold is ${model.number(model.threshold)}.${where}`
  );
}
