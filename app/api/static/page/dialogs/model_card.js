// The model card dialog: a version as GET /models/{name} describes it, with the images of its training report.

import { requestBlob } from "../service/http.js";
import { storedKey } from "../service/api_key.js";
import { headerRow, scrollableTable, titleBar } from "./dialog.js";
import { element } from "../dom.js";
import { count, percent, sentence } from "../format.js";

// Captions in display order; other report images follow, captioned with their file name.
const CAPTIONS = {
  recalibration: "Calibration scores before and after recalibration, with both thresholds",
  histogram: "Scores of calibration and test images, with the threshold",
  roc: "Detection rate at each false-alarm rate",
  suspicious: "The normal images with the highest scores: look for defects among them",
  worst: "Errors: the worst false alarms and the worst misses",
  reconstruction: "An anomaly, its reconstruction and the error map",
  gallery: "Test images of each kind above their reconstructions",
  precision_recall: "Precision and recall on the test images",
  samples: "Normal images, as fed to the model",
  loss: "Training and validation loss by epoch",
};

const FITS = {
  stretch: "stretched",
  pad: "padded with their reflection",
  crop: "cropped to their middle",
};

export function showModelCard(dialog, { card }) {
  dialog.replaceChildren(
    titleBar(dialog, card.name),
    element("p", { class: "muted" }, `version ${card.version}, created ${new Date(card.created_at).toLocaleString()}`),
    ...card.warnings.map((warning) => element("p", {}, element("strong", {}, `Warning: ${warning}`))),
    element("p", {}, sentence(card.promise)),
    ...evaluationSection(card),
    ...reportSection(card),
    element("h3", {}, "Training and calibration"),
    definitionList(settings(card)),
    element("h3", {}, "Files"),
    definitionList(
      Object.entries(card.files).map(([name, { sha256, bytes }]) => [name, `${count(bytes)} bytes, SHA-256 ${sha256}`]),
    ),
  );
  dialog.showModal();
}

function evaluationSection({ evaluation }) {
  if (evaluation === null) return [];
  const rows = [
    ["AUROC", evaluation.auroc?.toFixed(4)],
    ["Average precision", evaluation.average_precision?.toFixed(4)],
    [`Detection rate on ${count(evaluation.anomalies)} anomalies`, preciseShare(evaluation.detection_rate)],
    [`False-alarm rate on ${count(evaluation.normal)} normal images`, preciseShare(evaluation.false_alarm_rate)],
  ];
  return [
    element("h3", {}, "Evaluation on labelled test images"),
    definitionList(rows.filter(([, value]) => value !== undefined)),
    ...kindsTable(evaluation),
  ];
}

function kindsTable({ kinds }) {
  if (Object.keys(kinds).length === 0) return []; // a recalibrated version has no figures for each kind
  return [
    element("h3", {}, "By kind"),
    scrollableTable(
      { "aria-label": "By kind" },
      headerRow(["Kind"], ["Images", "Flagged as anomaly", "Median score"]),
      Object.entries(kinds).map(kindRow),
    ),
  ];
}

const preciseShare = (value) => (value === null ? undefined : `${(100 * value).toFixed(2)} %`);

function kindRow([kind, { count: images, flagged, median_score: median }]) {
  const cells = [count(images), preciseShare(flagged), median.toPrecision(4)];
  const numbers = cells.map((text) => element("td", { class: "number" }, text));
  return element("tr", {}, element("th", { scope: "row" }, kind), ...numbers);
}

function reportSection({ name, files }) {
  const url = (file) => `models/${encodeURIComponent(name)}/${file}`;
  const order = Object.keys(CAPTIONS);
  const rank = (file) => order.indexOf(stem(file)) + 1 || order.length + 1;
  const figures = Object.keys(files)
    .filter((file) => /^report\/(?!sample-).+\.png$/.test(file))
    .toSorted((one, other) => rank(one) - rank(other))
    .map((file) => figure(url(file), CAPTIONS[stem(file)] ?? stem(file)));
  const report = "report/index.html";
  return [
    element("h3", {}, "Training report"),
    element("div", { class: "report" }, ...figures),
    ...(report in files && storedKey() === null
      ? [element("p", {}, element("a", { href: url(report), target: "_blank" }, "Full report on one page"))]
      : []),
  ];
}

const stem = (file) => file.slice("report/".length, -".png".length);

/** Without a key the image links to its file; a link cannot send a key, so with one the image is fetched. */
function figure(url, caption) {
  const image = element("img", { alt: caption, loading: "lazy" });
  let content = image;
  if (storedKey() === null) {
    image.src = url;
    content = element("a", { href: url, target: "_blank" }, image);
  } else {
    requestBlob(url).then((blob) => (image.src = URL.createObjectURL(blob)), () => {}); // the caption stays
  }
  return element("figure", {}, content, element("figcaption", {}, caption));
}

function settings({ input, region_of_interest: interest, scoring, calibration, recalibration, training, data, libraries, guarantee, false_alarm_rate: rate, threshold }) {
  return [
    ["Normal images", `${data.source}: ${data.normal}; ${count(data.groups)} groups, ${data.unreadable} unreadable files`],
    ["Input", `${input.mode === "L" ? "grey" : "colour"}, ${input.width} × ${input.height} pixels; images of other proportions are ${FITS[input.fit]}`],
    ...(interest ? [["Region of interest", `${percent(interest.share)} of the input; the rest does not count`]] : []),
    ["Score", `${scoring.rule}: ${scoring.formula}`],
    ["Threshold", `${threshold.toPrecision(4)} at a false-alarm rate of ${percent(rate)} (${guarantee} guarantee)`],
    ["Calibration", `${calibrationText(calibration)}; lowest false-alarm rate ${percent(calibration.finest_false_alarm_rate)}`],
    ...(recalibration === null ? [] : [["Recalibration", recalibrationText(recalibration)]]),
    ["Training", `${count(training.fit_images)} images, ${count(training.parameters)} weights, ${training.seconds} s on ${training.device}, seed ${training.seed}`],
    ["Hyperparameters", pairs(training.recipe)],
    ["Libraries", pairs(libraries)],
    ["Data fingerprint", data.fingerprint],
  ];
}

const pairs = (entries) => Object.entries(entries).map(([key, value]) => `${key} ${value}`).join(", ");

function calibrationText({ size, groups }) {
  return `${count(size)} images${groups === size ? "" : ` in ${count(groups)} groups`}`;
}

function recalibrationText({ version, threshold, flagged, data }) {
  return (
    `weights of ${version}, recalibrated with ${data.source}; ` +
    `the old threshold ${threshold.toPrecision(4)} flags ${preciseShare(flagged)} of these images`
  );
}

function definitionList(entries) {
  return element("dl", { class: "facts" }, ...entries.flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value)]));
}
