// A model: its card, its calibration scores, the rules that can decide and the current one.

import { count, decimalsFor } from "../format.js";
import { Calibration } from "../sensitivity/false_discovery.js";
import { FalseAlarmRate, discoveryRules } from "../sensitivity/rules.js";
import { request } from "./http.js";
import { fromBase64 } from "./pictures.js";

const HANDWRITTEN = ["mnist", "digits"]; // the built-in sets of handwritten digits
const LARGE = 1000; // scores from here on have no decimals
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
    this.rules = {
      // Reversed so that the slider and the threshold line move in the same direction.
      alarms: calibration.stops.toReversed().map((stop) => new FalseAlarmRate(stop)),
      discoveries: discoveryRules(new Calibration(calibration)),
    };
    this.rule = this.rules.alarms.find(({ rate }) => rate === card.false_alarm_rate);
    this.decimals = decimalsFor(card.threshold);
    this.interest = card.region_of_interest && fromBase64(card.region_of_interest.mask); // white counts
  }

  requestDrift() {
    return request(`models/${encodeURIComponent(this.name)}/drift`);
  }

  get threshold() {
    return this.rule.threshold;
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
    return score < LARGE ? score.toFixed(this.decimals) : count(Math.round(score));
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
    return `Model ${this.name}, learned from ${count(training.fit_images)} normal images${kind} (${data.source}). A higher score is more unusual.`;
  }
}
