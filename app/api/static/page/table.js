// All pictures as a table that sorts by any column; a row is made once and brought up to date in place.

import { element } from "./dom.js";
import { sentence } from "./words.js";

const THUMBNAILS = ["input", "reconstruction", "error_map"];

// What each column sorts by; null goes last in either direction.
const COLUMNS = [
  { title: "Picture", key: null },
  { title: "Name", key: (picture) => picture.name },
  { title: "Verdict", key: (picture, model) => model.verdict(picture) },
  { title: "Score", key: (picture) => picture.result?.score ?? null, isNumber: true },
  { title: "p-value", key: (picture) => picture.result?.p_value ?? null, isNumber: true },
];

export class Table {
  #rows = new Map();
  #order = [];
  #column = null;
  #direction = 1;
  #again = () => {};

  constructor(head, body, onSelect) {
    this.body = body;
    this.onSelect = onSelect;
    this.heads = COLUMNS.map((column) => this.#head(column));
    head.append(...this.heads);
  }

  show(pictures, selected, model) {
    this.#again = () => this.show(pictures, selected, model);
    const kept = new Set(pictures);
    for (const picture of this.#rows.keys()) {
      if (!kept.has(picture)) this.#rows.delete(picture);
    }
    const order = this.sorted(pictures, model).map((picture) => this.#row(picture, picture === selected, model));
    if (order.length !== this.#order.length || order.some((row, index) => row !== this.#order[index])) {
      this.body.replaceChildren(...order);
    }
    this.#order = order;
  }

  /** The pictures in the order of the rows. */
  sorted(pictures, model) {
    if (this.#column === null) return [...pictures];
    const key = (picture) => this.#column.key(picture, model);
    return pictures.toSorted((one, other) => compare(key(one), key(other), this.#direction));
  }

  #head(column) {
    const attributes = { scope: "col", class: column.isNumber ? "number" : null };
    if (column.key === null) return element("th", attributes, column.title);
    const onclick = () => this.#sortBy(column);
    return element("th", attributes, element("button", { type: "button", onclick }, column.title));
  }

  #sortBy(column) {
    // Numbers begin with the highest: the most unusual is what people look for.
    const first = column.isNumber ? -1 : 1;
    this.#direction = this.#column === column ? -this.#direction : first;
    this.#column = column;
    this.heads.forEach((head, index) => {
      if (COLUMNS[index] === column) head.ariaSort = this.#direction > 0 ? "ascending" : "descending";
      else head.removeAttribute("aria-sort");
    });
    this.#again();
  }

  #row(picture, isSelected, model) {
    let row = this.#rows.get(picture);
    if (row === undefined) {
      row = this.#newRow(picture);
      this.#rows.set(picture, row);
    }
    const { images, button, reason, verdict, score, p } = row.parts;
    const word = model.verdict(picture);
    const shown = [picture.result, picture.reason, picture.state, word, isSelected];
    if (shown.every((each, index) => each === row.shown[index])) return row;
    row.shown = shown;
    row.className = [picture.state, word].filter(Boolean).join(" ");
    button.ariaPressed = isSelected;
    for (const part of THUMBNAILS) {
      images[part].hidden = picture.result === null;
      if (picture.result && images[part].src !== picture.result[part]) images[part].src = picture.result[part];
    }
    reason.textContent = picture.reason ? sentence(picture.reason) : "";
    verdict.textContent = word ?? (picture.reason ? "not scored" : "waiting");
    score.textContent = picture.result ? model.number(picture.result.score) : "";
    p.textContent = picture.result ? picture.result.p_value.toFixed(4) : "";
    return row;
  }

  #newRow(picture) {
    const images = Object.fromEntries(THUMBNAILS.map((part) => [part, element("img", { alt: "", hidden: true })]));
    const button = element("button", { type: "button" }, picture.name);
    const reason = element("p", { class: "quiet" });
    const [verdict, score, p] = [element("td", { class: "word" }), number(), number()];
    const row = element(
      "tr",
      { onclick: () => this.onSelect(picture) },
      element("td", {}, element("div", { class: "thumbnails" }, ...Object.values(images))),
      element("td", { class: "name" }, button, reason),
      verdict,
      score,
      p,
    );
    row.parts = { images, button, reason, verdict, score, p };
    row.shown = [];
    return row;
  }
}

const number = () => element("td", { class: "number" });

function compare(one, other, direction) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "number") return direction * (one - other);
  return direction * one.localeCompare(other, "en", { numeric: true });
}
