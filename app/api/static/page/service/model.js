// A model: its card, its calibration scores, the available thresholds and the current one.

import { request } from "./http.js";
import { count, decimalsFor } from "../format.js";

const HANDWRITTEN = ["mnist", "digits"]; // the built-in sets of handwritten digits
const SAMPLE = /^report\/sample-\d+-(.+)\.png$/;

/** All models of the store; follows the pages of GET /models. */
export async function listModels() {
  const store = await request("models?limit=200");
  for (let page = store; page.next !== null; store.models.push(...page.models)) {
    page = await request(`models?${new URLSearchParams({ limit: 200, after: page.next })}`);
  }
  return store;
}

export class Model {
  static async load(name) {
    const url = `models/${encodeURIComponent(name)}`;
    return new Model(...(await Promise.all([request(url), request(`${url}/calibration`), request(`${url}/drift`)])));
  }

  constructor(card, calibration, drift) {
    this.card = card;
    this.drift = drift;
    this.name = calibration.name;
    this.version = calibration.version;
    this.scores = calibration.scores;
    // Reversed so that the slider and the threshold line move in the same direction.
    this.stops = calibration.stops.toReversed();
    this.calibratedStop = this.stops.find((stop) => stop.false_alarm_rate === card.false_alarm_rate);
    this.stop = this.calibratedStop;
    this.decimals = decimalsFor(card.threshold);
  }

  requestDrift() {
    return request(`models/${encodeURIComponent(this.name)}/drift`);
  }

  get threshold() {
    return this.stop.threshold;
  }

  /** "anomaly", "normal", or null if the image has no score. */
  verdict(image) {
    if (image.result === null) return null;
    return image.result.score > this.threshold ? "anomaly" : "normal";
  }

  /** Whether the image does not look like the product at all; then it is an anomaly. */
  isOutOfScope(image) {
    return Boolean(image.result?.out_of_scope) && this.verdict(image) === "anomaly";
  }

  formatScore(score) {
    return score.toFixed(this.decimals);
  }

  /** Whether the model learned handwritten digits, which can be drawn. */
  get learnedDigits() {
    return HANDWRITTEN.includes(this.card.data.source) && this.card.input.mode === "L";
  }

  /** The model's own sample images: their URLs, kinds and file names. */
  get samples() {
    return Object.keys(this.card.files)
      .filter((file) => SAMPLE.test(file))
      .toSorted()
      .map((file) => ({
        url: `models/${encodeURIComponent(this.name)}/${file}`,
        kind: SAMPLE.exec(file)[1].replaceAll("-", " "),
        name: file.replace("report/", ""),
      }));
  }

  /** What the model was trained on. */
  get description() {
    const { data, training } = this.card;
    const kind = data.normal === "normal" ? "" : ` of “${data.normal}”`; // image folders do not name what they show
    return `Learned from ${count(training.fit_images)} normal images${kind} (${data.source}). The higher the score, the more unusual the image.`;
  }
}
