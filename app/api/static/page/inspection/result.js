// The result of the selected image: verdict, explanation, numbers, input, reconstruction and error map.

import { byId } from "./dom.js";
import { pValue, pValueText, sentence } from "./format.js";

// The API's image fields, and how alternative texts begin.
const PARTS = {
  input: "Model input of",
  reconstruction: "Reconstruction of",
  error_map: "Error map of",
};

export function showResult(image, model) {
  const result = image?.result ?? null;
  const verdict = image && model.verdict(image);
  byId("result-heading").textContent = image ? `Result for ${image.name}` : "Result";
  byId("verdict").className = ["verdict", image?.state ?? "empty", verdict].filter(Boolean).join(" ");
  byId("verdict-title").textContent = title(image, verdict);
  byId("verdict-text").textContent = explanation(image, model);
  for (const [part, description] of Object.entries(PARTS)) {
    const img = byId(`image-${part}`);
    img.hidden = result === null;
    img.alt = result ? `${description} ${image.name}` : "";
    if (result) img.src = result[part];
    else img.removeAttribute("src");
  }
  byId("number-score").textContent = result ? model.formatScore(result.score) : "–";
  byId("number-threshold").textContent = model.formatScore(model.threshold);
  byId("number-p").textContent = result ? pValue(result.p_value) : "–";
  byId("warnings").textContent = result ? result.warnings.map(sentence).join(" ") : "";
}

function title(image, verdict) {
  if (image === null) return "No image yet";
  if (verdict) return { anomaly: "Anomaly", normal: "Normal" }[verdict];
  return image.state === "waiting" ? "…" : "Not scored";
}

function explanation(image, model) {
  if (image === null) return "Draw something, or try a sample.";
  if (image.result) return pValueText(image.result.p_value, model.card.calibration.groups);
  return image.state === "waiting" ? "Waiting for the service." : sentence(image.reason);
}
