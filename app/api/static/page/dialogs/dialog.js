// Parts that the dialogs share.

import { element } from "../dom.js";

/** The heading that labels the dialog, and a Close button. */
export function titleBar(dialog, title) {
  return element(
    "div",
    { class: "bar" },
    element("h2", { id: `${dialog.id}-heading` }, title),
    element("button", { type: "button", onclick: () => dialog.close() }, "Close"),
  );
}

/** A table that scrolls sideways; `label` holds the ARIA attribute that names it. */
export function scrollableTable(label, header, rows) {
  return element(
    "div",
    { class: "table-scroll", role: "region", ...label, tabindex: 0 },
    element("table", {}, element("thead", {}, header), element("tbody", {}, ...rows)),
  );
}

/** Text columns first, then right-aligned number columns. */
export function headerRow(textTitles, numberTitles) {
  return element(
    "tr",
    {},
    ...textTitles.map((title) => element("th", { scope: "col" }, title)),
    ...numberTitles.map((title) => element("th", { scope: "col", class: "number" }, title)),
  );
}
