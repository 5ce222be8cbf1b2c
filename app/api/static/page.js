// The page: joins the pad, the files, the service, the histogram and the table. Each has a module of its own.

import { showCard } from "./page/card.js";
import { downloadCsv } from "./page/csv.js";
import { element } from "./page/dom.js";
import { Pad } from "./page/draw.js";
import { askEveryone } from "./page/everyone.js";
import { Histogram } from "./page/histogram.js";
import { fetchFile, listen } from "./page/intake.js";
import { Model, listModels } from "./page/model.js";
import { Picture } from "./page/picture.js";
import { showResult } from "./page/result.js";
import { ScoringQueue } from "./page/scoring.js";
import { Table } from "./page/table.js";
import { count, counted, rateWords, summaryOf } from "./page/words.js";

const at = (id) => document.getElementById(id);

let model = null;
let names = [];
let pictures = [];
let selected = null;
let drawing = null;

const histogram = new Histogram(at("histogram"));
const table = new Table(at("columns"), at("rows"), select);
const pad = new Pad(at("pad"), { onDraw: scoreDrawing, onNew: () => (drawing = null) });
const queue = new ScoringQueue({
  modelName: () => model.name,
  pictures: () => pictures,
  // The store may have moved on to another version: then thresholds and scores of the old one are void.
  onAnswer: (by) => (by?.name === model.name && by.version !== model.version ? chooseModel(model.name) : show()),
  onNotice: notify,
});

// ---- the model and its sensitivity

async function start() {
  try {
    const store = await listModels();
    if (store.models.length === 0) {
      notify("The store holds no model that can serve.", start);
      return;
    }
    names = store.models.map((card) => card.name);
    at("model").replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    at("model-choice").hidden = at("ask-all").hidden = names.length < 2;
    await chooseModel(names.includes(store.default) ? store.default : names[0]);
  } catch (error) {
    notify(error.message, start);
  }
}

async function chooseModel(name) {
  try {
    model = await Model.load(name);
  } catch (error) {
    at("model").value = model?.name ?? name;
    notify(error.message, () => chooseModel(name));
    return;
  }
  notify("");
  at("model").value = name;
  at("open-card").disabled = false;
  at("lead").textContent = model.lead;
  at("sensitivity").max = model.stops.length - 1;
  at("sensitivity").value = model.stops.indexOf(model.calibratedStop);
  at("sensitivity").disabled = false;
  at("scale-heading").textContent = `Where it falls among ${count(model.scores.length)} normal pictures`;
  histogram.calibrate(model);
  pictures.forEach((picture) => picture.forget());
  decide();
  queue.run();
}

function decide() {
  model.stop = model.stops[at("sensitivity").value];
  const words = rateWords(model.stop.false_alarm_rate);
  at("rate").textContent = words;
  at("sensitivity").setAttribute("aria-valuetext", words);
  show();
}

// ---- pictures come, pictures are shown

function add(files) {
  const added = files.map((file) => new Picture(file.name, file));
  if (added.length === 0) return;
  pictures.push(...added);
  select(added[0]);
  if (model) queue.run();
}

function scoreDrawing(blob) {
  if (blob === null) {
    pictures = pictures.filter((picture) => picture !== drawing);
    drawing = null;
    select(pictures.at(-1) ?? null);
    return;
  }
  if (drawing === null || !pictures.includes(drawing)) {
    drawing = new Picture(`drawing ${counted(pictures, "drawing") + 1}`, blob);
    pictures.push(drawing);
  } else {
    drawing.redraw(blob);
  }
  select(drawing);
  if (model) queue.run();
}

function select(picture) {
  selected = picture;
  show();
}

function show() {
  if (!model) return;
  showResult(selected, model);
  histogram.show(pictures, selected, model);
  table.show(pictures, selected, model);
  at("summary").textContent = summaryOf(pictures, model);
  at("ask-all").disabled = selected === null;
  at("download").disabled = !pictures.some((picture) => picture.state !== "waiting");
  at("remove").disabled = pictures.length === 0;
}

function notify(words, again = null) {
  at("notice").hidden = words === "";
  at("notice-words").textContent = words;
  at("again").hidden = again === null;
  at("again").onclick = () => {
    notify("");
    again();
  };
}

// ---- what people can press

at("model").addEventListener("change", () => chooseModel(at("model").value));
at("sensitivity").addEventListener("input", decide);
at("open-card").addEventListener("click", () => showCard(at("card"), model));
at("ask-all").addEventListener("click", () => askEveryone(at("everyone"), selected, names, chooseModel));
at("undo").addEventListener("click", () => pad.undo());
at("clear").addEventListener("click", () => pad.clear());
at("choose").addEventListener("click", () => at("files").click());
at("files").addEventListener("change", () => {
  add([...at("files").files]);
  at("files").value = "";
});
at("download").addEventListener("click", () => downloadCsv(table.sorted(pictures, model), model));
at("remove").addEventListener("click", () => {
  pictures = [];
  drawing = null;
  pad.clear();
  select(null);
});
for (const sample of at("samples").children) {
  const { src } = sample.firstElementChild;
  sample.addEventListener("click", () => fetchFile(src).then(add, () => notify("The sample is out of reach.")));
}
listen(document, add);
start();
