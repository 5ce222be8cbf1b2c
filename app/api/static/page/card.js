// The model card: what is known of a version, from GET /models/{name}, with its training report's pictures.

import { element } from "./dom.js";
import { count, percent, sentence } from "./words.js";

// In this order; a report may have others, which follow.
const PICTURES = {
  recalibration: "Calibration scores, old and new, with both thresholds",
  histogram: "Scores of calibration and test pictures, with the threshold",
  roc: "How many anomalies are found at each false-alarm rate",
  worst: "Where it errs: the worst false alarms and the worst misses",
  reconstruction: "An anomaly, its reconstruction and the error map",
  gallery: "Test pictures of each kind above their reconstructions",
  precision_recall: "Precision and recall on the test pictures",
  samples: "Normal pictures, as the model sees them",
  loss: "Loss by epoch of training",
};

export function showCard(dialog, { card }) {
  const close = element("button", { type: "button", onclick: () => dialog.close() }, "Close");
  dialog.replaceChildren(
    element("div", { class: "bar" }, element("h2", { id: "card-heading" }, card.name), close),
    element("p", { class: "quiet" }, `version ${card.version}, made ${new Date(card.created_at).toLocaleString()}`),
    element("p", {}, sentence(card.promise)),
    ...figures(card),
    ...pictures(card),
    element("h3", {}, "How it was made"),
    list(settings(card)),
    element("h3", {}, "Files"),
    list(Object.entries(card.files).map(([name, { sha256, bytes }]) => [name, `${count(bytes)} bytes, SHA-256 ${sha256}`])),
  );
  dialog.showModal();
}

function figures({ evaluation }) {
  if (evaluation === null) return [];
  const rows = [
    ["AUROC", evaluation.auroc?.toFixed(4)],
    ["Average precision", evaluation.average_precision?.toFixed(4)],
    [`Found of ${count(evaluation.anomalies)} anomalies`, share(evaluation.detection_rate)],
    [`False alarms on ${count(evaluation.normal)} normal pictures`, share(evaluation.false_alarm_rate)],
  ];
  return [
    element("h3", {}, "On labelled test pictures"),
    list(rows.filter(([, value]) => value !== undefined)),
    ...byKind(evaluation),
  ];
}

function byKind({ kinds }) {
  if (Object.keys(kinds).length === 0) return []; // a new threshold has no figures of its own yet
  return [
    element("h3", {}, "By kind"),
    element(
      "div",
      { class: "sheet", role: "region", "aria-label": "By kind", tabindex: 0 },
      element(
        "table",
        {},
        element("thead", {}, headRow("Kind", "Pictures", "Called anomalies", "Median score")),
        element("tbody", {}, ...Object.entries(kinds).map(kindRow)),
      ),
    ),
  ];
}

const share = (value) => (value === null ? undefined : `${(100 * value).toFixed(2)} %`);

function headRow(first, ...others) {
  const cells = others.map((title) => element("th", { scope: "col", class: "number" }, title));
  return element("tr", {}, element("th", { scope: "col" }, first), ...cells);
}

function kindRow([kind, { count: pictures, flagged, median_score: median }]) {
  const cells = [count(pictures), share(flagged), median.toPrecision(4)];
  const numbers = cells.map((text) => element("td", { class: "number" }, text));
  return element("tr", {}, element("th", { scope: "row" }, kind), ...numbers);
}

function pictures({ name, files }) {
  const drawn = Object.keys(files).filter((file) => /^report\/.+\.png$/.test(file));
  const known = Object.keys(PICTURES);
  const place = (file) => (known.indexOf(titleOf(file)) + 1 || known.length + 1);
  const url = (file) => `models/${encodeURIComponent(name)}/${file}`;
  const report = "report/index.html";
  return [
    element("h3", {}, "The training report"),
    element(
      "div",
      { class: "report" },
      ...drawn
        .toSorted((one, other) => place(one) - place(other))
        .map((file) => {
          const words = PICTURES[titleOf(file)] ?? titleOf(file);
          return element(
            "figure",
            {},
            element("a", { href: url(file), target: "_blank" }, element("img", { src: url(file), alt: words, loading: "lazy" })),
            element("figcaption", {}, words),
          );
        }),
    ),
    ...(report in files
      ? [element("p", {}, element("a", { href: url(report), target: "_blank" }, "The whole report on one page"))]
      : []),
  ];
}

const titleOf = (file) => file.slice("report/".length, -".png".length);

function settings({ input, scoring, calibration, recalibration, training, data, libraries, guarantee, false_alarm_rate: rate, threshold }) {
  return [
    ["Normal pictures", `${data.source}: ${data.normal}; ${count(data.groups)} things shown, ${data.unreadable} files unreadable`],
    ["Input", `${input.mode === "L" ? "grey" : "colour"}, ${input.width} × ${input.height} pixels`],
    ["Score", `${scoring.rule}: ${scoring.formula}`],
    ["Threshold", `${threshold.toPrecision(4)}, at ${percent(rate)} false alarms (${guarantee} guarantee)`],
    ["Calibration", `${count(calibration.size)} pictures; finest rate ${percent(calibration.finest_false_alarm_rate)}`],
    ...(recalibration === null ? [] : [["Recalibrated", recalibrated(recalibration)]]),
    ["Training", `${count(training.fit_images)} pictures, ${count(training.parameters)} weights, ${training.seconds} s on ${training.device}, seed ${training.seed}`],
    ["Recipe", Object.entries(training.recipe).map(([key, value]) => `${key} ${value}`).join(", ")],
    ["Libraries", Object.entries(libraries).map(([key, value]) => `${key} ${value}`).join(", ")],
    ["Data fingerprint", data.fingerprint],
  ];
}

function list(entries) {
  return element("dl", { class: "facts" }, ...entries.flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value)]));
}

function recalibrated({ version, threshold, flagged, data }) {
  const old = `weights of ${version}, whose threshold was ${threshold.toPrecision(4)}`;
  return `${old}; set anew by ${data.source}, of which the old one calls ${share(flagged)} anomalies`;
}
