// The selected picture: verdict, what it means, what the model saw and made of it.

import { pValueWords, sentence } from "./words.js";

const at = (id) => document.getElementById(id);
const PARTS = {
  input: "What the model saw of",
  reconstruction: "The model's reconstruction of",
  error_map: "Error map of",
};

export function showResult(picture, model) {
  const result = picture?.result ?? null;
  const verdict = picture && model.verdict(picture);
  at("result-heading").textContent = `What the model says${picture ? ` of ${picture.name}` : ""}`;
  at("verdict").className = ["verdict", picture?.state ?? "empty", verdict].filter(Boolean).join(" ");
  at("verdict-word").textContent = headline(picture, verdict);
  at("verdict-words").textContent = explanation(picture, model);
  for (const [part, words] of Object.entries(PARTS)) {
    const image = at(`picture-${part}`);
    image.hidden = result === null;
    image.alt = result ? `${words} ${picture.name}` : "";
    if (result) image.src = result[part];
    else image.removeAttribute("src");
  }
  at("number-score").textContent = result ? model.number(result.score) : "–";
  at("number-threshold").textContent = model.number(model.threshold);
  at("number-p").textContent = result ? result.p_value.toFixed(4) : "–";
  at("warnings").textContent = result ? result.warnings.map(sentence).join(" ") : "";
}

function headline(picture, verdict) {
  if (picture === null) return "Your turn";
  if (verdict) return { anomaly: "Anomaly", normal: "Normal" }[verdict];
  return picture.state === "waiting" ? "…" : "Not scored";
}

function explanation(picture, model) {
  if (picture === null) return "Draw something, or try a sample.";
  if (picture.result) return pValueWords(picture.result.p_value, model.scores.length);
  return picture.state === "waiting" ? "Waiting for the service." : sentence(picture.reason);
}
