// Connects the drawing pad, the file inputs, the API, the histogram and the table.

import { requestHealth } from "./page/api.js";
import { compareModels } from "./page/compare_models.js";
import { downloadCsv } from "./page/csv.js";
import { byId, element } from "./page/dom.js";
import { DrawingPad } from "./page/drawing_pad.js";
import { fetchFile, listenForFiles } from "./page/file_input.js";
import { count, rateText, summaryText } from "./page/format.js";
import { Histogram } from "./page/histogram.js";
import { ImageEntry } from "./page/image.js";
import { Model, listModels } from "./page/model.js";
import { showModelCard } from "./page/model_card.js";
import { showResult } from "./page/result.js";
import { ScoringQueue } from "./page/scoring.js";
import { Table } from "./page/table.js";

let model = null;
let modelNames = [];
let images = [];
let selected = null;
let drawing = null;

const histogram = new Histogram(byId("histogram"));
const table = new Table(byId("columns"), byId("rows"), select);
const pad = new DrawingPad(byId("pad"), { onDraw: scoreDrawing, onClear: () => (drawing = null) });
const queue = new ScoringQueue({
  modelName: () => model.name,
  images: () => images,
  // After the store activates another version, thresholds and scores of the old one are invalid.
  onResponse: (by) => (by?.name === model.name && by.version !== model.version ? chooseModel(model.name) : show()),
  onNotice: notify,
});

// ---- Model and sensitivity

async function start() {
  try {
    const store = await listModels();
    if (store.models.length === 0) {
      notify("No model is available in the store.", start);
      return;
    }
    modelNames = store.models.map((card) => card.name);
    const hasDefault = modelNames.includes(store.default);
    byId("model").replaceChildren(
      ...(hasDefault ? [] : [element("option", { value: "", disabled: true, selected: true }, "choose…")]),
      ...modelNames.map((name) => element("option", { value: name }, name)),
    );
    byId("compare").hidden = modelNames.length < 2;
    byId("model-choice").hidden = hasDefault && modelNames.length < 2;
    if (hasDefault) await chooseModel(store.default);
    else notify(`${await defaultMissing(store.default)} Choose another model above, or try again.`, start);
  } catch (error) {
    notify(error.message, start);
  }
}

/** Why the service does not serve its default model. No other model may silently take its place. */
async function defaultMissing(name) {
  const { reason } = await requestHealth();
  return `The default model ${name} is not available${reason ? `: ${reason}` : ""}.`;
}

async function chooseModel(name) {
  try {
    model = await Model.load(name);
  } catch (error) {
    byId("model").value = model?.name ?? name;
    notify(error.message, () => chooseModel(name));
    return;
  }
  notify("");
  byId("model").value = name;
  byId("open-card").disabled = false;
  byId("lead").textContent = model.description;
  byId("sensitivity").max = model.stops.length - 1;
  byId("sensitivity").value = model.stops.indexOf(model.calibratedStop);
  byId("sensitivity").disabled = false;
  byId("histogram-heading").textContent = `Score compared with ${count(model.scores.length)} normal images`;
  histogram.calibrate(model);
  images.forEach((image) => image.reset());
  applySensitivity();
  queue.run();
}

function applySensitivity() {
  model.stop = model.stops[byId("sensitivity").value];
  const text = rateText(model.stop.false_alarm_rate);
  byId("rate").textContent = text;
  byId("sensitivity").setAttribute("aria-valuetext", text);
  show();
}

// ---- Adding and showing images

function add(files) {
  const added = files.map((file) => new ImageEntry(file.name, file));
  if (added.length === 0) return;
  images.push(...added);
  selectAndScore(added[0]);
}

function scoreDrawing(blob) {
  if (blob === null) {
    images = images.filter((image) => image !== drawing);
    drawing = null;
    select(images.at(-1) ?? null);
    return;
  }
  if (drawing === null || !images.includes(drawing)) {
    const drawings = images.filter((image) => image.name.startsWith("drawing"));
    drawing = new ImageEntry(`drawing ${drawings.length + 1}`, blob);
    images.push(drawing);
  } else {
    drawing.replace(blob);
  }
  selectAndScore(drawing);
}

function selectAndScore(image) {
  select(image);
  if (model) queue.run();
}

function select(image) {
  selected = image;
  show();
}

function show() {
  if (!model) return;
  showResult(selected, model);
  histogram.show(images, selected, model);
  table.show(images, selected, model);
  byId("summary").textContent = summaryText(images, model);
  byId("compare").disabled = selected === null;
  byId("download").disabled = images.every((image) => image.state === "waiting");
  byId("remove").disabled = images.length === 0;
}

/** Shows a notice, with a button if there is something to retry; an empty text hides it. */
function notify(text, retry = null) {
  byId("notice").hidden = text === "";
  byId("notice-text").textContent = text;
  byId("retry").hidden = retry === null;
  byId("retry").onclick = () => {
    notify("");
    retry();
  };
}

// ---- Event listeners

byId("model").addEventListener("change", () => chooseModel(byId("model").value));
byId("sensitivity").addEventListener("input", applySensitivity);
byId("open-card").addEventListener("click", () => showModelCard(byId("card"), model));
byId("compare").addEventListener("click", () => compareModels(byId("comparison"), selected, modelNames, chooseModel));
byId("undo").addEventListener("click", () => pad.undo());
byId("clear").addEventListener("click", () => pad.clear());
byId("choose").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", () => {
  add([...byId("files").files]);
  byId("files").value = "";
});
byId("download").addEventListener("click", () => downloadCsv(table.sorted(images, model), model));
byId("remove").addEventListener("click", () => {
  images = [];
  drawing = null;
  pad.clear();
  select(null);
});
for (const sample of byId("samples").children) {
  const { src } = sample.firstElementChild;
  sample.addEventListener("click", () => fetchFile(src).then(add, () => notify("The sample could not be loaded.")));
}
listenForFiles(document, add);
start();
