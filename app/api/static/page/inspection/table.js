// The table of all images, sortable by column. Rows are kept and updated in place.

import { element } from "./dom.js";
import { pValue, sentence } from "./format.js";

const THUMBNAILS = ["input", "reconstruction", "error_map"];

// `key` gives the sort key; null keys sort last in both directions. A column without a key cannot be sorted.
const COLUMNS = [
  { title: "Image", key: null },
  { title: "Name", key: (image) => image.name },
  { title: "Verdict", key: (image, model) => model.verdict(image) },
  { title: "Score", key: (image) => image.result?.score ?? null, isNumber: true },
  { title: "p-value", key: (image) => image.result?.p_value ?? null, isNumber: true },
];

export class Table {
  #rows = new Map();
  #order = [];
  #column = null;
  #direction = 1;
  #refresh = () => {};

  constructor(header, body, onSelect) {
    this.body = body;
    this.onSelect = onSelect;
    this.headerCells = COLUMNS.map((column) => this.#headerCell(column));
    header.append(...this.headerCells);
  }

  show(images, selected, model) {
    this.#refresh = () => this.show(images, selected, model);
    const kept = new Set(images);
    for (const image of this.#rows.keys()) {
      if (!kept.has(image)) this.#rows.delete(image);
    }
    const order = this.sorted(images, model).map((image) => this.#row(image, image === selected, model));
    if (order.length !== this.#order.length || order.some((row, index) => row !== this.#order[index])) {
      this.body.replaceChildren(...order);
    }
    this.#order = order;
  }

  /** The images in the order of the rows. */
  sorted(images, model) {
    if (this.#column === null) return [...images];
    const key = (image) => this.#column.key(image, model);
    return images.toSorted((one, other) => compare(key(one), key(other), this.#direction));
  }

  #headerCell(column) {
    const attributes = { scope: "col", class: column.isNumber ? "number" : null };
    if (column.key === null) return element("th", attributes, column.title);
    const onclick = () => this.#sortBy(column);
    return element("th", attributes, element("button", { type: "button", onclick }, column.title));
  }

  #sortBy(column) {
    const initial = column.isNumber ? -1 : 1; // numbers: highest first, where the anomalies are
    this.#direction = this.#column === column ? -this.#direction : initial;
    this.#column = column;
    this.headerCells.forEach((cell, index) => {
      if (COLUMNS[index] === column) cell.ariaSort = this.#direction > 0 ? "ascending" : "descending";
      else cell.removeAttribute("aria-sort");
    });
    this.#refresh();
  }

  #row(image, isSelected, model) {
    let row = this.#rows.get(image);
    if (row === undefined) {
      row = this.#newRow(image);
      this.#rows.set(image, row);
    }
    const { thumbnails, button, reason, verdictCell, score, p } = row.parts;
    const verdict = model.verdict(image);
    const shown = [image.result, image.reason, image.state, verdict, isSelected];
    if (shown.every((each, index) => each === row.shown[index])) return row;
    row.shown = shown;
    row.className = [image.state, verdict].filter(Boolean).join(" ");
    button.ariaPressed = isSelected;
    for (const part of THUMBNAILS) {
      thumbnails[part].hidden = image.result === null;
      if (image.result && thumbnails[part].src !== image.result[part]) thumbnails[part].src = image.result[part];
    }
    reason.textContent = image.reason ? sentence(image.reason) : "";
    verdictCell.textContent = verdict ?? (image.reason ? "not scored" : "waiting");
    score.textContent = image.result ? model.formatScore(image.result.score) : "";
    p.textContent = image.result ? pValue(image.result.p_value) : "";
    return row;
  }

  #newRow(image) {
    const thumbnails = Object.fromEntries(THUMBNAILS.map((part) => [part, element("img", { alt: "", hidden: true })]));
    const button = element("button", { type: "button" }, image.name);
    const reason = element("p", { class: "muted" });
    const [verdictCell, score, p] = ["verdict-cell", "number", "number"].map((kind) => element("td", { class: kind }));
    const row = element(
      "tr",
      { onclick: () => this.onSelect(image) },
      element("td", {}, element("div", { class: "thumbnails" }, ...Object.values(thumbnails))),
      element("td", { class: "name" }, button, reason),
      verdictCell,
      score,
      p,
    );
    row.parts = { thumbnails, button, reason, verdictCell, score, p };
    row.shown = [];
    return row;
  }
}

function compare(one, other, direction) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "number") return direction * (one - other);
  return direction * one.localeCompare(other, "en", { numeric: true });
}
