// The histogram of calibration scores on a logarithmic axis, with the threshold and the score of each image.

import { svg } from "../dom.js";

const HEIGHT = 172;
const TOP = 30;
const BASE = 146; // y of the axis
const BINS = 56;
const PIN = 7; // from the edge, so that all of it is seen
// The axis extends beyond the calibration scores by these factors.
const LEFT_MARGIN = 1.3;
const RIGHT_MARGIN = 4;

export class Histogram {
  #shown = null;

  constructor(container) {
    this.container = container;
    this.chart = svg("svg", { height: HEIGHT, role: "img" });
    container.append(this.chart);
    new ResizeObserver(() => this.#draw()).observe(container);
  }

  /** Sets the axis and the bars from a model's calibration scores. */
  calibrate(model) {
    const positive = model.scores.filter((score) => score > 0);
    this.low = (positive[0] ?? 1) / LEFT_MARGIN;
    this.high = (positive.at(-1) ?? 1) * RIGHT_MARGIN;
    this.counts = new Array(BINS).fill(0);
    for (const score of model.scores) this.counts[Math.min(Math.floor(this.#position(score) * BINS), BINS - 1)] += 1;
  }

  show(images, selected, model) {
    this.#shown = { images, selected, model };
    this.#draw();
  }

  /** The position of a score on the axis, clamped to 0…1. */
  #position(score) {
    const position = Math.log(Math.max(score, this.low) / this.low) / Math.log(this.high / this.low);
    return Math.min(Math.max(position, 0), 1);
  }

  #draw() {
    const width = this.container.clientWidth;
    if (this.#shown === null || width === 0) return; // no width: not laid out, and rectangles would have negative sizes
    const { images, selected, model } = this.#shown;
    const x = (score) => 1 + this.#position(score) * (width - 2);
    const line = x(model.threshold);
    const bars = this.#bars(width);
    const withVerdict = (verdict) => images.filter((image) => model.verdict(image) === verdict);
    this.chart.setAttribute("width", width);
    this.chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.chart.setAttribute("aria-label", describe(selected, model));
    this.chart.replaceChildren(
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
      rug(withVerdict("normal"), x, "rug"),
      rug(withVerdict("anomaly"), x, "rug alarm"),
      svg("line", { x1: line, x2: line, y1: TOP - 12, y2: BASE, class: "threshold" }),
      ...sides(line, width),
      ...(selected?.result ? marker(Math.min(Math.max(x(selected.result.score), PIN), width - PIN), model.verdict(selected) === "anomaly") : []),
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

/** A rug plot: a short line at the score of each image. */
function rug(images, x, kind) {
  return svg("path", { d: images.map(({ result }) => `M${x(result.score)} ${BASE}v-9`).join(""), class: kind });
}

function sides(line, width) {
  const label = (x, anchor, text, kind) => svg("text", { x, y: TOP - 14, "text-anchor": anchor, class: kind }, text);
  return [
    ...(line > 70 ? [label(line - 8, "end", "normal", "side")] : []),
    ...(width - line > 80 ? [label(line + 8, "start", "anomaly", "side alarm")] : []),
  ];
}

function marker(x, isAnomaly) {
  return [
    svg("line", { x1: x, x2: x, y1: TOP + 8, y2: BASE, class: isAnomaly ? "pin alarm" : "pin" }),
    svg("circle", { cx: x, cy: TOP + 8, r: PIN - 1, class: isAnomaly ? "pin alarm" : "pin" }),
  ];
}

function describe(selected, model) {
  const score = selected?.result ? ` ${selected.name} scores ${model.formatScore(selected.result.score)}.` : "";
  return (
    `Histogram of the scores of ${model.scores.length} normal images that were not used for training; ` +
    `the threshold is ${model.formatScore(model.threshold)}.${score}`
  );
}
