// Numbers and counts in words that need no statistics.

const integers = new Intl.NumberFormat("en");
const percents = new Intl.NumberFormat("en", { style: "percent", maximumSignificantDigits: 2 });

export const count = (number) => integers.format(number);
export const percent = (share) => percents.format(share);

/** How many decimals give four digits of a number of this size; all scores of a model share them. */
export function decimalsFor(size) {
  return size > 0 ? Math.min(Math.max(3 - Math.floor(Math.log10(size)), 0), 9) : 4;
}

/** "5 in 1,000 normal pictures look at least this unusual". */
export function pValueWords(p, calibrationSize) {
  const among = calibrationSize + 1;
  if (Math.round(p * among) <= 1) return `At most 1 in ${count(among)} normal pictures looks this unusual.`;
  const of = p < 0.01 ? 1000 : 100;
  const share = Math.max(Math.round(p * of), 1);
  return `About ${share} in ${count(of)} normal pictures look${share === 1 ? "s" : ""} at least this unusual.`;
}

/** How to read a verdict; or, no longer than that, that the pictures of late are not like those it was calibrated on. */
export function driftWords({ verdict, scores, window }) {
  if (verdict !== "changed") return "The worse it redraws yours, the more unusual yours is.";
  return `The last ${count(window)} it was sent look ${scores === "higher" ? "more" : "less"} unusual than those.`;
}

export function rateWords(rate) {
  return `1 in ${count(Math.round(1 / rate))} (${percent(rate)})`;
}

export function summaryOf(pictures, model) {
  if (pictures.length === 0) return "None yet.";
  const waiting = pictures.filter((picture) => picture.state === "waiting").length;
  const unscored = pictures.filter((picture) => ["refused", "failed"].includes(picture.state)).length;
  const verdicts = pictures.map((picture) => model.verdict(picture));
  const of = (verdict) => verdicts.filter((each) => each === verdict).length;
  return [
    `${count(of("anomaly"))} ${of("anomaly") === 1 ? "anomaly" : "anomalies"}`,
    `${count(of("normal"))} normal`,
    ...(unscored > 0 ? [`${count(unscored)} not scored`] : []),
    ...(waiting > 0 ? [`${count(waiting)} waiting`] : []),
  ].join(", ");
}

/** How many pictures have names that begin so. */
export function counted(pictures, beginning) {
  return pictures.filter((picture) => picture.name.startsWith(beginning)).length;
}

/** The text with a capital and a full stop. */
export function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.?!]$/.test(trimmed) ? "" : ".");
}
