// The list of labelled images, whoever labelled them, and its downloads.

import { element } from "../dom.js";
import { count, percent } from "../format.js";
import { saveAs, toCsv } from "../images/csv.js";
import { allLabels, labelledImage, listLabels } from "../service/labels.js";
import { headerRow, scrollableTable, titleBar } from "./dialog.js";

const COLUMNS = ["labelled_at", "model", "version", "filename", "said", "verdict", "operator", "comment", "score", "threshold", "picture", "image"];

export async function reviewLabels(dialog) {
  const status = element("p", { class: "muted", role: "status" }, "Reading the labels…");
  dialog.replaceChildren(titleBar(dialog, "Labels"), status);
  dialog.showModal();
  try {
    const { labels } = await listLabels();
    status.textContent = summary(labels);
    dialog.append(downloads(), scrollableTable({ "aria-label": "Labels" }, headerRow(["Image", "Verdict", "Operator", "Time"], []), labels.map(row)));
  } catch (problem) {
    status.textContent = problem.message;
  }
}

function summary(labels) {
  if (labels.length === 0) return "No image has been labelled yet.";
  const right = labels.filter(({ said, verdict }) => said === verdict).length;
  return `The last ${count(labels.length)} labelled images: the verdict was right for ${percent(right / labels.length)}.`;
}

function row({ filename, comment, said, verdict, operator, labelled_at: time, model, image }) {
  const isRight = said === verdict;
  return element(
    "tr",
    { class: verdict },
    element(
      "td",
      {},
      element(
        "div",
        { class: "labelled" },
        thumbnail(image),
        element("div", {}, filename ?? "–", element("p", { class: "muted" }, [model.name, comment].filter(Boolean).join(": "))),
      ),
    ),
    element("td", { class: "verdict-cell" }, verdict, element("p", { class: "muted" }, isRight ? "✓ as the model said" : `✗ the model said ${said}`)),
    element("td", {}, operator || "–"),
    element("td", {}, new Date(time).toLocaleString()),
  );
}

function thumbnail(name) {
  const img = element("img", { alt: "", class: "thumbnail" });
  if (name) labelledImage(name).then((blob) => (img.src = URL.createObjectURL(blob)), () => {}); // the row is enough
  img.addEventListener("load", () => URL.revokeObjectURL(img.src));
  return img;
}

function downloads() {
  const button = (title, download) => element("button", { type: "button", onclick: async () => download(await allLabels()) }, title);
  return element(
    "div",
    { class: "bar" },
    button("Download JSON Lines", (labels) =>
      saveAs("labels.jsonl", "application/jsonl", labels.map((label) => `${JSON.stringify(label)}\n`).join("")),
    ),
    button("Download CSV", (labels) => saveAs("labels.csv", "text/csv", toCsv(COLUMNS, labels.map(fields)))),
  );
}

function fields(label) {
  const whole = { ...label, said: label.score > label.threshold ? "anomaly" : "normal" };
  return COLUMNS.map((column) => whole[column]);
}
