// The table as a CSV file (RFC 4180).

import { element } from "./dom.js";

const COLUMNS = {
  name: (picture) => picture.name,
  status: (picture) => picture.state,
  verdict: (picture, model) => model.verdict(picture),
  score: (picture) => picture.result?.score,
  threshold: (_, model) => model.threshold,
  false_alarm_rate: (_, model) => model.stop.false_alarm_rate,
  p_value: (picture) => picture.result?.p_value,
  mse: (picture) => picture.result?.mse,
  model: (_, model) => model.name,
  version: (_, model) => model.version,
  warnings: (picture) => picture.result?.warnings.join("; "),
  reason: (picture) => picture.reason,
};

export function downloadCsv(pictures, model) {
  const rows = pictures.map((picture) => Object.values(COLUMNS).map((column) => column(picture, model)));
  const text = [Object.keys(COLUMNS), ...rows].map((row) => row.map(field).join(",") + "\r\n").join("");
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  element("a", { href: url, download: `${model.name}-scores.csv` }).click();
  URL.revokeObjectURL(url);
}

function field(value) {
  if (typeof value === "number") return String(value);
  // A file may be named like a formula; a spreadsheet must not run it.
  const text = String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
