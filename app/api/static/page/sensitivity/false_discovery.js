// Benjamini-Hochberg over the images of the list: the same decision as app/false_discovery.py makes in the service.

const ROUNDING = 1 + 1e-12; // a p-value that is above its limit by a rounding error counts as equal

/** The largest p-value to flag, or null: of m p-values in ascending order, the last one with p(i) ≤ q·i/m. */
export function largestFlagged(pValues, rate) {
  const limit = (rate * ROUNDING) / Math.max(1, pValues.length);
  const flagged = pValues.toSorted((one, other) => one - other).filter((p, index) => p <= limit * (index + 1));
  return flagged.at(-1) ?? null;
}

/** The calibration scores with the weight of those above each: each group of images has the weight 1 in all. */
export class Calibration {
  #above; // for each score the weight of the scores above it

  constructor({ scores, groups }) {
    this.scores = scores;
    const sizes = new Map();
    (groups ?? []).forEach((group) => sizes.set(group, (sizes.get(group) ?? 0) + 1));
    this.groups = groups === null ? scores.length : sizes.size;
    this.#above = new Array(scores.length);
    for (let at = scores.length - 1, weight = 0; at >= 0; at--) {
      this.#above[at] = at + 1 < scores.length && scores[at] === scores[at + 1] ? this.#above[at + 1] : weight;
      weight += groups === null ? 1 : 1 / sizes.get(groups[at]);
    }
  }

  /** The smallest p-value that an image can have. */
  get finest() {
    return 1 / (this.groups + 1);
  }

  /** The score that exactly the images with at most this p-value exceed. */
  thresholdFor(p) {
    return this.scores[this.#above.findIndex((weight) => (1 + weight) / (this.groups + 1) <= p * (1 + 1e-9))];
  }
}
