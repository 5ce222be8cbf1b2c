// A model: its card, its calibration scores, the available thresholds and the current one.

import { request } from "./api.js";
import { count, decimalsFor, driftText } from "./format.js";

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

  get threshold() {
    return this.stop.threshold;
  }

  /** "anomaly", "normal", or null if the image has no score. */
  verdict(image) {
    if (image.result === null) return null;
    return image.result.score > this.threshold ? "anomaly" : "normal";
  }

  formatScore(score) {
    return score.toFixed(this.decimals);
  }

  /** What the model was trained on, then how to read a score or a drift warning. */
  get description() {
    const { data, training } = this.card;
    const kind = data.normal === "normal" ? "" : ` of “${data.normal}”`; // image folders do not name what they show
    const images = `${count(training.fit_images)} images${kind} from ${data.source}`;
    return `This model was trained on normal images only: ${images}. ${driftText(this.drift)}`;
  }
}
