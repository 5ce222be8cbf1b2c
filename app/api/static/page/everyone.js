// What every model of the store says of one picture: a table that fills while they are asked, a few at a time.

import { element } from "./dom.js";
import { score } from "./scoring.js";
import { count, decimalsFor, sentence } from "./words.js";

const AT_ONCE = 4;
const FULL = [429]; // the queue; a model that is out of order (503) says so in its row

/** Opens the dialog; closing it stops the asking. `onChoose` hears which model was pressed. */
export async function askEveryone(dialog, picture, names, onChoose) {
  const asking = new AbortController();
  const choose = (name) => {
    dialog.close();
    onChoose(name);
  };
  const rows = names.map((name) => new Row(name, () => choose(name)));
  const summary = element("p", { class: "quiet", role: "status" }, `Asking ${count(names.length)} models…`);
  dialog.replaceChildren(
    element(
      "div",
      { class: "bar" },
      element("h2", { id: "everyone-heading" }, `What every model says of ${picture.name}`),
      element("button", { type: "button", onclick: () => dialog.close() }, "Close"),
    ),
    summary,
    element(
      "div",
      { class: "sheet", role: "region", "aria-labelledby": "everyone-heading", tabindex: 0 },
      element("table", {}, element("thead", {}, heads()), element("tbody", {}, ...rows.map((row) => row.element))),
    ),
  );
  dialog.onclose = () => asking.abort();
  dialog.showModal();

  const waiting = [...rows];
  const askOneByOne = async () => {
    while (waiting.length > 0 && !asking.signal.aborted) await waiting.shift().ask(picture, asking.signal);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, askOneByOne));
  if (!asking.signal.aborted) summary.textContent = inShort(rows);
}

class Row {
  constructor(name, onclick) {
    this.name = name;
    this.verdict = null;
    this.word = element("td", { class: "word" }, "…");
    this.numbers = [0, 1, 2].map(() => element("td", { class: "number" }));
    const button = element("button", { type: "button", title: `Show what ${name} makes of it`, onclick }, name);
    this.element = element("tr", {}, element("th", { scope: "row" }, button), this.word, ...this.numbers);
  }

  async ask(picture, signal) {
    try {
      const answer = await score([picture], { model: this.name, include: "" }, { busy: FULL, signal });
      this.#show(answer.results[0], answer.threshold);
    } catch (problem) {
      this.numbers.forEach((cell) => cell.remove());
      this.word.colSpan = 1 + this.numbers.length;
      this.word.replaceChildren("not scored", element("p", { class: "quiet" }, sentence(problem.message)));
    }
  }

  #show({ verdict, score: number, p_value: p }, threshold) {
    Object.assign(this, { verdict, p });
    this.element.className = verdict;
    this.word.textContent = verdict;
    const decimals = decimalsFor(threshold) - 1;
    const texts = [number.toFixed(decimals), threshold.toFixed(decimals), p.toFixed(4)];
    this.numbers.forEach((cell, index) => (cell.textContent = texts[index]));
  }
}

function heads() {
  const numbers = ["Score", "Threshold", "p-value"].map((title) => element("th", { scope: "col", class: "number" }, title));
  return element("tr", {}, element("th", { scope: "col" }, "Model"), element("th", { scope: "col" }, "Verdict"), ...numbers);
}

function inShort(rows) {
  const of = (verdict) => rows.filter((row) => row.verdict === verdict);
  const [normal, anomalies, silent] = [of("normal"), of("anomaly"), of(null)];
  const [first] = normal.toSorted((one, other) => other.p - one.p);
  return [
    normal.length === 0 ? "Normal for none" : `Normal for ${count(normal.length)}, most of all for ${first.name}`,
    `an anomaly for ${count(anomalies.length)}`,
    ...(silent.length > 0 ? [`not scored by ${count(silent.length)}`] : []),
  ].join(", ") + ". Each decides at the false-alarm rate that it was calibrated for.";
}
