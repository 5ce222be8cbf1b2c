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

/** "14 of 31 anomalies, 1 not readable, 5 decided": what an operator wants to know first. */
export function headline(images, model) {
  if (images.length === 0) return "No images yet";
  const withState = (...states) => images.filter(({ state }) => states.includes(state)).length;
  const anomalies = images.filter((image) => model.verdict(image) === "anomaly").length;
  const [unreadable, failed, waiting] = [withState("rejected"), withState("failed"), withState("waiting")];
  const decided = images.filter((image) => image.decision !== null).length;
  return [
    waiting === images.length ? "Scoring" : `${count(anomalies)} of ${count(images.length - waiting)} anomalies`,
    ...(unreadable > 0 ? [`${count(unreadable)} not readable`] : []),
    ...(failed > 0 ? [`${count(failed)} not scored`] : []),
    ...(waiting > 0 ? [`${count(waiting)} waiting`] : []),
    ...(decided > 0 ? [decided === withState("scored") && waiting === 0 ? "all decided" : `${count(decided)} decided`] : []),
  ].join(", ");
}

/** The text with a capital first letter and a full stop. */
export function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.?!]$/.test(trimmed) ? "" : ".");
}

/** A share of an image's area. */
export function areaText(share) {
  return share < 0.001 ? "less than 0.1%" : percent(share);
}
