// The table of all images, sortable by column. Rows are kept and updated in place.

import { element } from "../dom.js";
import { pValue, sentence } from "../format.js";

// Without a chosen column: anomalies, then what an operator must look at, what is not known yet, and the normal images.
const URGENCY = { anomaly: 0, rejected: 1, failed: 1, waiting: 2, normal: 3 };

const MARKS = { right: "✓ right", wrong: "✗ wrong" };
const UNSENT = " …"; // until the service has stored it

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

  constructor(header, body, { thumbnails, onSelect }) {
    this.body = body;
    this.thumbnails = thumbnails;
    this.onSelect = onSelect;
    this.headerCells = COLUMNS.map((column) => this.#headerCell(column));
    header.append(...this.headerCells);
  }

  show(images, selected, model) {
    this.#refresh = () => this.show(images, selected, model);
    const kept = new Set(images);
    for (const image of this.#rows.keys()) {
      if (!kept.has(image)) this.#forget(image);
    }
    const order = this.sorted(images, model).map((image) => this.#row(image, image === selected, model));
    if (order.length !== this.#order.length || order.some((row, index) => row !== this.#order[index])) {
      this.body.replaceChildren(...order);
    }
    this.#order = order;
  }

  /** The images in the order of the rows. */
  sorted(images, model) {
    if (this.#column === null) return images.toSorted((one, other) => byUrgency(one, other, model));
    const key = (image) => this.#column.key(image, model);
    return images.toSorted((one, other) => compare(key(one), key(other), this.#direction));
  }

  /** The image that is `step` rows below the given one, or the nearest there is. */
  neighbour(image, step) {
    const rows = this.#order;
    const at = rows.findIndex((row) => row.image === image);
    return rows[Math.min(Math.max(at + step, 0), rows.length - 1)]?.image ?? null;
  }

  /** The first image below the given one, from the top again, that meets a condition; or null. */
  next(image, isWanted) {
    const images = this.#order.map((row) => row.image);
    const at = images.indexOf(image);
    return [...images.slice(at + 1), ...images.slice(0, Math.max(at, 0))].find(isWanted) ?? null;
  }

  /** Moves the keyboard focus to the row of an image. */
  focus(image) {
    const row = this.#rows.get(image);
    row?.parts.button.focus({ preventScroll: true });
    row?.scrollIntoView({ block: "nearest" });
  }

  #forget(image) {
    this.thumbnails.forget(this.#rows.get(image).parts.thumbnail);
    this.#rows.delete(image);
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
    const { thumbnail, button, mark, reason, verdictCell, score, p } = row.parts;
    const verdict = model.verdict(image);
    const shown = [image.blob, image.result, image.reason, image.state, image.decision, verdict, isSelected];
    if (shown.every((each, index) => each === row.shown[index])) return row;
    if (image.blob !== row.shown[0] || image.result !== row.shown[1]) this.thumbnails.show(thumbnail, image);
    row.shown = shown;
    row.className = [image.state, verdict].filter(Boolean).join(" ");
    button.ariaPressed = isSelected;
    mark.textContent = image.decision ? markText(image.decision, verdict) : "";
    reason.textContent = image.reason ? sentence(image.reason) : "";
    verdictCell.textContent = verdict ?? { waiting: "waiting", rejected: "not readable" }[image.state] ?? "not scored";
    score.textContent = image.result ? model.formatScore(image.result.score) : "";
    p.textContent = image.result ? pValue(image.result.p_value) : "";
    return row;
  }

  #newRow(image) {
    const thumbnail = element("img", { alt: "", class: "thumbnail" });
    const button = element("button", { type: "button" }, image.name);
    const mark = element("span", { class: "mark" });
    const reason = element("p", { class: "muted" });
    const [verdictCell, score, p] = ["verdict-cell", "number", "number"].map((kind) => element("td", { class: kind }));
    const row = element(
      "tr",
      { onclick: () => this.onSelect(image) },
      element("td", {}, thumbnail),
      element("td", { class: "name" }, button, mark, reason),
      verdictCell,
      score,
      p,
    );
    row.image = image;
    row.parts = { thumbnail, button, mark, reason, verdictCell, score, p };
    row.shown = [];
    return row;
  }
}

const markText = ({ verdict, sent }, said) => MARKS[verdict === said ? "right" : "wrong"] + (sent ? "" : UNSENT);

function byUrgency(one, other, model) {
  const urgency = (image) => URGENCY[model.verdict(image) ?? image.state];
  return urgency(one) - urgency(other) || (other.result?.score ?? 0) - (one.result?.score ?? 0);
}

function compare(one, other, direction) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "number") return direction * (one - other);
  return direction * one.localeCompare(other, "en", { numeric: true });
}
