// A model: its card, its calibration scores, the thresholds on offer and the one in force.

import { request } from "./service.js";
import { count, decimalsFor, driftWords } from "./words.js";

/** The whole store, page by page. */
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
    // As the threshold's line goes: from many false alarms on the left to few on the right.
    this.stops = calibration.stops.toReversed();
    this.calibratedStop = this.stops.find((stop) => stop.false_alarm_rate === card.false_alarm_rate);
    this.stop = this.calibratedStop;
    this.decimals = decimalsFor(card.threshold);
  }

  get threshold() {
    return this.stop.threshold;
  }

  /** "anomaly" or "normal", or null while there is no score. */
  verdict(picture) {
    if (picture.result === null) return null;
    return picture.result.score > this.threshold ? "anomaly" : "normal";
  }

  number(score) {
    return score.toFixed(this.decimals);
  }

  /** What the model knows, and how to read it; or, in the same room, that its pictures have changed. */
  get lead() {
    const { data, training } = this.card;
    const kind = data.normal === "normal" ? "" : ` of “${data.normal}”`; // a folder says no more than that
    return (
      `This model has only ever seen what is normal: ${count(training.fit_images)} pictures${kind} from ${data.source}. ` +
      driftWords(this.drift)
    );
  }
}
