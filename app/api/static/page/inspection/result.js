// The result of the selected image: verdict, explanation, numbers, and what the model saw and made of it.

import { byId } from "../dom.js";
import { pValue, pValueText, sentence } from "../format.js";
import { regionsText } from "./overlay.js";

// The pictures of an answer, and how alternative texts begin.
const PARTS = {
  input: "Model input of",
  reconstruction: "Reconstruction of",
  error_map: "Error map of",
};

let shown = null; // the result whose pictures are shown
let urls = [];

export function showResult(image, model) {
  const result = image?.result ?? null;
  const verdict = image && model.verdict(image);
  byId("result-heading").textContent = image ? image.name : "Result";
  byId("verdict").className = ["verdict", image?.state ?? "empty", verdict].filter(Boolean).join(" ");
  byId("verdict-title").textContent = title(image, verdict, model);
  byId("verdict-text").textContent = explanation(image, model);
  byId("number-score").textContent = result ? model.formatScore(result.score) : "–";
  byId("number-threshold").textContent = model.formatScore(model.threshold);
  byId("number-p").textContent = result ? pValue(result.p_value) : "–";
  byId("warnings").textContent = result ? [...result.warnings.map(sentence), regionsText(result.regions, model)].join(" ").trim() : "";
  if (result !== shown) showPictures(image, result);
}

function showPictures(image, result) {
  shown = result;
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
  for (const [part, description] of Object.entries(PARTS)) {
    const img = byId(`image-${part}`);
    img.hidden = result === null;
    img.alt = result ? `${description} ${image.name}` : "";
    if (result) {
      img.src = URL.createObjectURL(result.pictures[part]);
      urls.push(img.src);
    } else img.removeAttribute("src");
  }
}

function title(image, verdict, model) {
  if (image === null) return "No image yet";
  if (verdict) return { anomaly: "Anomaly", normal: "Normal" }[verdict];
  return { waiting: "…", rejected: "Not readable" }[image.state] ?? "Not scored";
}

function explanation(image, model) {
  if (image && model.isOutOfScope(image)) return "Out of scope: perhaps no picture of this product.";
  if (image === null) return model.learnedDigits ? "Draw something, or try a sample." : "Drop images, use the camera, or try a sample.";
  if (image.result) return pValueText(image.result.p_value, model.card.calibration.groups);
  return image.state === "waiting" ? "Waiting for the service." : sentence(image.reason);
}
