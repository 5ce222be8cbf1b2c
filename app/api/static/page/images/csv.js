// Tables as CSV files (RFC 4180).

import { element } from "../dom.js";

const COLUMNS = {
  name: (image) => image.name,
  status: (image) => (image.state === "rejected" ? "refused" : image.state), // "refused" is part of the file format
  verdict: (image, model) => model.verdict(image),
  score: (image) => image.result?.score,
  rule: (_, model) => model.rule.columns.rule,
  threshold: (_, model) => model.rule.columns.threshold, // none of its own if images are decided together
  false_alarm_rate: (_, model) => model.rule.columns.false_alarm_rate,
  fdr: (_, model) => model.rule.columns.fdr,
  p_value: (image) => image.result?.p_value,
  mse: (image) => image.result?.mse,
  model: (_, model) => model.name,
  version: (_, model) => model.version,
  warnings: (image) => image.result?.warnings.join("; "),
  out_of_scope: (image, model) => (image.result ? model.isOutOfScope(image) : null),
  decision: (image) => image.decision?.verdict,
  comment: (image) => image.decision?.comment,
  reason: (image) => image.reason,
};

export function downloadCsv(images, model) {
  const rows = images.map((image) => Object.values(COLUMNS).map((column) => column(image, model)));
  saveAs(`${model.name}-scores.csv`, "text/csv", toCsv(Object.keys(COLUMNS), rows));
}

/** A table as CSV text. */
export function toCsv(titles, rows) {
  return [titles, ...rows].map((row) => row.map(field).join(",") + "\r\n").join("");
}

/** Lets the browser save a file. */
export function saveAs(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  element("a", { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}

function field(value) {
  if (typeof value === "number") return String(value);
  // Prevents formula injection: a spreadsheet would evaluate a file name that starts with one of these characters.
  const text = String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
