// Scores one image with every model of the store and shows the results in a table.

import { headerRow, scrollableTable, titleBar } from "./dialog.js";
import { element } from "../dom.js";
import { count, decimalsFor, pValue, sentence } from "../format.js";
import { scoreImages } from "../service/scoring.js";

const CONCURRENT_REQUESTS = 4;
const QUEUE_FULL = [429]; // 503 is not retried: the row of an unavailable model shows its error

/** Opens the dialog; closing it cancels the requests. `onChoose` gets the name of the model that is clicked. */
export async function compareModels(dialog, image, names, onChoose) {
  const controller = new AbortController();
  const choose = (name) => {
    dialog.close();
    onChoose(name);
  };
  const rows = names.map((name) => new Row(name, () => choose(name)));
  const summary = element("p", { class: "muted", role: "status" }, `Scoring with ${count(names.length)} models…`);
  dialog.replaceChildren(
    titleBar(dialog, `All models: ${image.name}`),
    summary,
    scrollableTable(
      { "aria-labelledby": `${dialog.id}-heading` },
      headerRow(["Model", "Verdict"], ["Score", "Threshold", "p-value"]),
      rows.map((row) => row.element),
    ),
  );
  dialog.onclose = () => controller.abort();
  dialog.showModal();

  const waiting = [...rows];
  const scoreNext = async () => {
    while (waiting.length > 0 && !controller.signal.aborted) await waiting.shift().score(image, controller.signal);
  };
  await Promise.all(Array.from({ length: CONCURRENT_REQUESTS }, scoreNext));
  if (!controller.signal.aborted) summary.textContent = summaryText(rows);
}

class Row {
  constructor(name, onclick) {
    this.name = name;
    this.verdict = null;
    this.verdictCell = element("td", { class: "verdict-cell" }, "…");
    this.numberCells = [0, 1, 2].map(() => element("td", { class: "number" }));
    const button = element("button", { type: "button", title: `Switch to ${name}`, onclick }, name);
    this.element = element("tr", {}, element("th", { scope: "row" }, button), this.verdictCell, ...this.numberCells);
  }

  async score(image, signal) {
    try {
      const response = await scoreImages([image], { model: this.name, include: "" }, { retryOn: QUEUE_FULL, signal });
      this.#show(response.results[0], response.threshold);
    } catch (problem) {
      this.numberCells.forEach((cell) => cell.remove());
      this.verdictCell.colSpan = 1 + this.numberCells.length;
      this.verdictCell.replaceChildren("not scored", element("p", { class: "muted" }, sentence(problem.message)));
    }
  }

  #show({ verdict, score: number, p_value: p }, threshold) {
    Object.assign(this, { verdict, p });
    this.element.className = verdict;
    this.verdictCell.textContent = verdict;
    const decimals = decimalsFor(threshold) - 1;
    const texts = [number.toFixed(decimals), threshold.toFixed(decimals), pValue(p)];
    this.numberCells.forEach((cell, index) => (cell.textContent = texts[index]));
  }
}

function summaryText(rows) {
  const withVerdict = (verdict) => rows.filter((row) => row.verdict === verdict);
  const [normal, anomalies, unscored] = [withVerdict("normal"), withVerdict("anomaly"), withVerdict(null)];
  const [best] = normal.toSorted((one, other) => other.p - one.p);
  return [
    `Normal for ${count(normal.length)}${best ? ` (highest p-value: ${best.name})` : ""}`,
    `anomaly for ${count(anomalies.length)}`,
    ...(unscored.length > 0 ? [`not scored by ${count(unscored.length)}`] : []),
  ].join(", ") + ". Each model uses its own false-alarm rate.";
}
