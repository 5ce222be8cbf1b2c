// How a threshold is chosen: by the share of normal images that may raise an alarm, or of alarms that may be false.

import { count, percent } from "../format.js";
import { largestFlagged } from "./false_discovery.js";

const DISCOVERY_RATES = [0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01];

/** At most a share of the normal images raises an alarm. Each image is decided by itself. */
export class FalseAlarmRate {
  constructor({ false_alarm_rate: rate, threshold }) {
    Object.assign(this, { rate, threshold });
  }

  /** What a downloaded table says about the verdicts. */
  get columns() {
    return { rule: "false alarm rate", threshold: this.threshold, false_alarm_rate: this.rate, fdr: null };
  }

  /** The threshold is the same for every list. */
  decide() {}

  get explanation() {
    return `Of normal images, at most ${oneIn(this.rate)} ${isOne(this.rate) ? "raises" : "raise"} an alarm. Each image is decided by itself.`;
  }
}

/** At most a share of the alarms is false, on average. All images of the list are decided together. */
export class FalseDiscoveryRate {
  constructor(rate, calibration) {
    Object.assign(this, { rate, calibration, images: 0 });
    this.decide([]);
  }

  get columns() {
    return { rule: "false discovery rate", threshold: null, false_alarm_rate: null, fdr: this.rate };
  }

  /** Sets the threshold for a list of images; without a flagged one, it is a score that none of them exceeds. */
  decide(images) {
    const results = images.map(({ result }) => result).filter(Boolean);
    const largest = largestFlagged(results.map((result) => result.p_value), this.rate);
    const highest = () => results.reduce((most, { score }) => Math.max(most, score), this.calibration.scores.at(-1));
    this.images = results.length;
    this.threshold = largest === null ? highest() : this.calibration.thresholdFor(largest);
    this.flagsNone = largest === null;
  }

  get explanation() {
    const meaning = `Of the alarms, on average at most ${oneIn(this.rate)} ${isOne(this.rate) ? "is" : "are"} false.`;
    if (this.images === 0) return `${meaning} All images of the list are decided together.`;
    const together = this.images === 1 ? "" : ` The ${count(this.images)} scored images are decided together, so further ones can change verdicts.`;
    const needed = Math.ceil((this.images * this.calibration.finest) / this.rate - 1e-9);
    const many = this.flagsNone && needed > 1 ? ` For an alarm, at least ${count(needed)} of them must be more unusual than every calibration image.` : "";
    return meaning + together + many;
  }
}

/** The false-discovery rates that a calibration can support, in the order of the slider: fewer false alarms last. */
export function discoveryRules(calibration) {
  const rates = DISCOVERY_RATES.filter((rate) => rate >= calibration.finest * (1 - 1e-12));
  return (rates.length > 0 ? rates : [calibration.finest]).map((rate) => new FalseDiscoveryRate(rate, calibration));
}

export const rateText = (rate) => `${oneIn(rate)} (${percent(rate)})`;

/** "1 in 100", but "40 in 100". */
const oneIn = (rate) => (isOne(rate) ? `1 in ${count(Math.round(1 / rate))}` : `${Math.round(100 * rate)} in 100`);

function isOne(rate) {
  const whole = Math.round(1 / rate);
  return Math.abs(1 / rate - whole) < 0.05 * whole;
}
