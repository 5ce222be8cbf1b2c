// Formats numbers and results as text.

const integers = new Intl.NumberFormat("en");
const percents = new Intl.NumberFormat("en", { style: "percent", maximumSignificantDigits: 2 });

export const count = (number) => integers.format(number);
export const percent = (share) => percents.format(share);
export const pValue = (p) => p.toFixed(4);

/** Decimals that show four significant digits of `size`; all scores of a model use the same number. */
export function decimalsFor(size) {
  return size > 0 ? Math.min(Math.max(3 - Math.floor(Math.log10(size)), 0), 9) : 4;
}

/** The p-value as a frequency: "About 5 in 1,000 normal images are at least this unusual." */
export function pValueText(p, calibrationGroups) {
  const total = calibrationGroups + 1;
  if (p * total < 1 + 1e-9) return `At most 1 in ${count(total)} normal images is this unusual.`;
  const base = p < 0.01 ? 1000 : 100;
  const share = Math.max(Math.round(p * base), 1);
  return `About ${share} in ${count(base)} normal images ${share === 1 ? "is" : "are"} at least this unusual.`;
}

/** How to read a score, or a drift warning of about the same length. */
export function driftText({ verdict, scores, window }) {
  if (verdict !== "changed") return "The worse the reconstruction, the more unusual the image.";
  return `The last ${count(window)} images score ${scores} than the calibration images.`;
}

export function rateText(rate) {
  return `1 in ${count(Math.round(1 / rate))} (${percent(rate)})`;
}

/** The number of images for each outcome. */
export function summaryText(images, model) {
  if (images.length === 0) return "No images yet.";
  const waiting = images.filter((image) => image.state === "waiting").length;
  const unscored = images.filter((image) => ["rejected", "failed"].includes(image.state)).length;
  const withVerdict = (verdict) => images.filter((image) => model.verdict(image) === verdict).length;
  const anomalies = withVerdict("anomaly");
  return [
    `${count(anomalies)} ${anomalies === 1 ? "anomaly" : "anomalies"}`,
    `${count(withVerdict("normal"))} normal`,
    ...(unscored > 0 ? [`${count(unscored)} not scored`] : []),
    ...(waiting > 0 ? [`${count(waiting)} waiting`] : []),
  ].join(", ");
}

/** The text with a capital first letter and a full stop. */
export function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.?!]$/.test(trimmed) ? "" : ".");
}
