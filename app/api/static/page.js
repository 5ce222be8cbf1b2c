// Connects what gives images (pad, files, camera, samples), the service, and what shows the results.

import { byId, element } from "./page/dom.js";
import { compareModels } from "./page/dialogs/compare_models.js";
import { drawMask } from "./page/dialogs/mask_editor.js";
import { showModelCard } from "./page/dialogs/model_card.js";
import { showRetraining } from "./page/dialogs/retrain.js";
import { reviewLabels } from "./page/dialogs/review.js";
import { count, headline } from "./page/format.js";
import { downloadCsv } from "./page/images/csv.js";
import { ImageEntry } from "./page/images/image.js";
import { Session } from "./page/images/session.js";
import { Thumbnails } from "./page/images/thumbnails.js";
import { Decisions } from "./page/inspection/decision.js";
import { Histogram } from "./page/inspection/histogram.js";
import { notify, showBanners } from "./page/inspection/notices.js";
import { showResult } from "./page/inspection/result.js";
import { Table } from "./page/inspection/table.js";
import { Viewer } from "./page/inspection/viewer.js";
import { listenForKeys } from "./page/keyboard.js";
import { SensitivityControl } from "./page/sensitivity/control.js";
import { requestHealth } from "./page/service/http.js";
import { listLabels } from "./page/service/labels.js";
import { Model, listModels } from "./page/service/model.js";
import { ScoringQueue } from "./page/service/scoring.js";
import { stateMessages } from "./page/service/state.js";
import { Camera } from "./page/sources/camera.js";
import { DrawingPad } from "./page/sources/drawing_pad.js";
import { listenForFiles } from "./page/sources/file_input.js";
import { showSamples } from "./page/sources/samples.js";

const REFRESH_MS = 60_000;

let store = { models: [], refused: [], default: null };
let model = null;
let images = [];
let selected = null;
let drawing = null;
let followsUrgent = false; // the most urgent image is selected until another is chosen

const session = new Session(() =>
  notify("session", "The browser's storage is full: the newest images will be gone after a reload."),
);
const histogram = new Histogram(byId("histogram"));
const viewer = new Viewer();
const table = new Table(byId("columns"), byId("rows"), { thumbnails: new Thumbnails(), onSelect: select });
const pad = new DrawingPad(byId("pad"), { onDraw: scoreDrawing, onClear: () => (drawing = null) });
const camera = new Camera({ onStill: (file) => add([file]), onProblem: (text) => notify("camera", text) });
const sensitivity = new SensitivityControl(show);
const decisions = new Decisions({
  images: () => images,
  onDecision: (image, isNew) => {
    session.save([image]);
    show();
    if (isNew && image === selected) goTo(table.next(image, ({ state, decision }) => state === "scored" && decision === null));
  },
  onBack: goTo,
  onProblem: (text, action) => notify("decisions", text, action),
});
const queue = new ScoringQueue({
  modelName: () => model.name,
  images: () => images,
  onResponse: (by, scored) => {
    session.save(scored);
    // After the store activates another version, thresholds and scores of the old one are invalid.
    return by?.name === model.name && by.version !== model.version ? chooseModel(model.name) : show();
  },
  onNotice: (text, action) => notify("service", text, action),
});

// ---- Model and sensitivity

async function start() {
  try {
    [store] = await Promise.all([listModels(), lookForLabels()]);
  } catch (error) {
    document.body.dataset.mode ??= "files"; // there is a page to look at, whatever happens
    notify("service", error.message, start);
    return;
  }
  notify("service", "");
  const names = store.models.map((card) => card.name);
  const wanted = new URLSearchParams(location.search).get("model") ?? store.default;
  const isThere = names.includes(wanted);
  byId("model").replaceChildren(
    ...(isThere ? [] : [element("option", { value: "", disabled: true, selected: true }, "choose…")]),
    ...names.map((name) => element("option", { value: name }, name)),
  );
  byId("compare").hidden = names.length < 2;
  byId("model-choice").hidden = names.length === 0 || (isThere && names.length < 2);
  await (isThere ? chooseModel(wanted) : showMissing(wanted));
}

/** Before the page is laid out: it has more parts where labels are kept. */
async function lookForLabels() {
  try {
    const { kept, images_kept: imagesKept } = await listLabels(1);
    document.body.classList.toggle("labelling", kept);
    decisions.imagesKept = imagesKept;
    decisions.send();
  } catch {
    // without labels the page does everything else
  }
}

/** No other model may silently take the place of the one that was asked for. */
async function showMissing(name) {
  const isDefault = name === store.default;
  const refused = store.refused.find((each) => each.name === name)?.reason;
  const reason = refused ?? (isDefault ? (await requestHealth()).reason : null);
  const messages = stateMessages({ store, model: null, missing: name, reason });
  showBanners(messages.map((message) => ({ ...message, action: start })));
  byId("verdict-text").textContent = "Choose a model first.";
  document.body.dataset.mode = "files";
}

/** The address names the model, so that a reload or a bookmark opens it again. */
function switchTo(name) {
  history.replaceState(null, "", `?${new URLSearchParams({ model: name })}`);
  chooseModel(name);
}

async function chooseModel(name) {
  let chosen;
  try {
    chosen = await Model.load(name);
  } catch (error) {
    byId("model").value = model?.name ?? name;
    document.body.dataset.mode ??= "files";
    notify("service", error.message, () => chooseModel(name));
    return;
  }
  const isOther = chosen.name !== model?.name || chosen.version !== model.version;
  model = chosen;
  notify("service", "");
  byId("model").value = name;
  byId("open-card").disabled = byId("open-retrain").disabled = false;
  byId("lead").textContent = model.description;
  showBanners(stateMessages({ store, model }));
  document.body.dataset.mode = model.learnedDigits ? "digits" : "files";
  byId("source-heading").textContent = model.learnedDigits ? "Draw a digit" : "Add images";
  if (isOther) showSamples(model, (file) => add([file]), () => notify("samples", "The sample could not be loaded."));
  byId("histogram-heading").textContent = `Score compared with ${count(model.scores.length)} normal images`;
  histogram.calibrate(model);
  renewOutdated();
  sensitivity.setModel(model); // this shows everything
}

/** Scores again what another model or version has scored. */
function renewOutdated() {
  const isCurrent = ({ name, version }) => name === model.name && version === model.version;
  const outdated = images.filter(({ result, state }) => (result ? !isCurrent(result.by) : state === "failed"));
  outdated.forEach((image) => image.reset());
  session.save(outdated);
  queue.run();
}

/** A page can be open all day: drift and refused versions must not wait for a reload. */
async function refreshState() {
  if (!model || document.hidden) return;
  try {
    const [{ refused }, drift] = await Promise.all([requestHealth(), model.requestDrift()]);
    Object.assign(store, { refused });
    Object.assign(model, { drift });
    showBanners(stateMessages({ store, model }));
  } catch {
    // scoring tells if the service is away
  }
}

// ---- Adding and showing images

function add(files) {
  const added = files.map((file) => new ImageEntry(file.name, file));
  if (added.length === 0) return;
  images.push(...added);
  selectAndScore(added[0], added);
  followsUrgent = added.length > 1;
}

function scoreDrawing(blob) {
  if (blob === null) {
    session.remove([drawing]);
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
  selectAndScore(drawing, [drawing]);
}

function selectAndScore(image, changed) {
  session.save(changed);
  select(image);
  if (model) queue.run();
}

function select(image) {
  followsUrgent = false;
  selected = image;
  show();
}

function step(rows) {
  return goTo(table.neighbour(selected, rows));
}

function goTo(image) {
  if (image === null) return false;
  select(image);
  table.focus(image);
  return true;
}

function removeAll() {
  const [removed, wasSelected] = [images, selected];
  images = [];
  drawing = null;
  pad.clear();
  session.remove(removed);
  select(null);
  const undo = () => {
    images = [...removed, ...images];
    session.save(removed);
    select(wasSelected);
    renewOutdated();
  };
  notify("undo", `${removed.length === 1 ? "1 image was" : `${count(removed.length)} images were`} removed.`, undo, "Undo");
}

function show() {
  if (!model) return;
  sensitivity.show(images); // first: the verdicts of all images can depend on each other
  if (followsUrgent) {
    selected = table.sorted(images, model)[0];
    followsUrgent = selected.state !== "scored"; // never from under the finger on a key
  }
  showResult(selected, model);
  viewer.show(selected, model);
  decisions.show(selected, model);
  histogram.show(images, selected, model);
  table.show(images, selected, model);
  byId("summary").textContent = headline(images, model);
  byId("compare").disabled = selected === null;
  byId("draw-mask").disabled = selected === null || selected.state === "rejected";
  byId("download").disabled = images.every((image) => image.state === "waiting");
  byId("remove").disabled = images.length === 0;
}

// ---- Event listeners

byId("model").addEventListener("change", () => switchTo(byId("model").value));
byId("open-card").addEventListener("click", () => showModelCard(byId("card"), model));
byId("compare").addEventListener("click", () =>
  compareModels(byId("comparison"), selected, store.models.map(({ name }) => name), switchTo),
);
byId("open-labels").addEventListener("click", () => reviewLabels(byId("labels")));
byId("open-retrain").addEventListener("click", () => showRetraining(byId("retraining"), model, decisions.imagesKept));
byId("draw-mask").addEventListener("click", () => drawMask(byId("mask"), byId("original"), model));
byId("undo").addEventListener("click", () => pad.undo());
byId("clear").addEventListener("click", () => pad.clear());
for (const id of ["choose", "choose-beside-pad"]) byId(id).addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", () => {
  add([...byId("files").files]);
  byId("files").value = "";
});
byId("download").addEventListener("click", () => downloadCsv(table.sorted(images, model), model));
byId("remove").addEventListener("click", removeAll);
listenForFiles(document, add);
listenForKeys({
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  j: () => decisions.decide(true),
  f: () => decisions.decide(false),
  Backspace: () => decisions.back(),
  c: () => decisions.comment(),
  m: () => viewer.toggleMarks(),
  " ": ({ target }) => camera.isOpen && !target.matches("button, a") && (camera.still(), true),
  "+": () => viewer.zoom(1.7),
  "-": () => viewer.zoom(1 / 1.7),
  0: () => viewer.fit(),
});

setInterval(refreshState, REFRESH_MS);
images = await session.restore();
selected = images.at(0) ?? null;
followsUrgent = images.length > 1;
await start();
