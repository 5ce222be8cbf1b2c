// What the labels are good for: the command that trains the model again with them, or only sets its threshold again.

import { element } from "../dom.js";
import { count } from "../format.js";
import { listLabels } from "../service/labels.js";
import { titleBar } from "./dialog.js";

const MOST = 1000; // labels that the service lists
const BUILT_IN = ["mnist", "fashion-mnist", "digits"]; // sets of images that no labelled image can join
const WHERE = "Run it on the machine of the service, with its settings as environment variables; add --store if its models are not in model_store.";
const [LABELS, IMAGES] = ["$ANOMALY_FEEDBACK_PATH", "$ANOMALY_FEEDBACK_IMAGES"];

export async function showRetraining(dialog, model, imagesKept) {
  const status = element("p", { class: "muted", role: "status" }, "Counting the labels…");
  dialog.replaceChildren(titleBar(dialog, `Retrain ${model.name}`), status);
  dialog.showModal();
  try {
    const { labels } = await listLabels(MOST);
    const own = labels.filter((label) => label.model.name === model.name);
    const advice = imagesKept && !BUILT_IN.includes(model.card.data.source) ? retraining(model, own) : recalibration(model, own);
    status.textContent = `${labels.length === MOST ? `Of the last ${count(MOST)} labels, ` : ""}${numbers(advice.labels)} for ${model.name}.`;
    dialog.append(element("p", {}, advice.meaning), command(advice.words), element("p", { class: "muted" }, advice.places));
  } catch (problem) {
    status.textContent = problem.message;
  }
}

/** Labels count once for each image, whatever version scored it; the newest comes first. */
function retraining({ name, card }, labels) {
  const images = new Map();
  for (const label of labels) if (label.image !== null && !images.has(label.image)) images.set(label.image, label);
  return {
    labels: [...images.values()],
    meaning:
      "Trains again on the old images and three quarters of those labelled normal, compares both versions on the rest and " +
      "on the labelled anomalies, and goes on serving the old version until you activate the new one.",
    words: ["python -m training retrain", name, `--data …/${card.data.source}`, `--feedback "${LABELS}"`, `--images "${IMAGES}"`],
    places: `Put the folder that ${name} was trained on in place of …/${card.data.source}. ${WHERE}`,
  };
}

function recalibration({ name, version, card }, labels) {
  const why = BUILT_IN.includes(card.data.source) ? `${name} learned a built-in set of images` : "The service keeps labels without their images (ANOMALY_FEEDBACK_IMAGES)";
  return {
    labels: labels.filter((label) => label.model.version === version),
    meaning: `${why}, so only the threshold can be set again: from the scores of the images labelled normal, with the same weights.`,
    words: ["python -m training recalibrate", name, `--feedback "${LABELS}"`],
    places: WHERE,
  };
}

function numbers(labels) {
  const normal = labels.filter(({ verdict }) => verdict === "normal").length;
  const anomalies = labels.length - normal;
  return `${count(normal)} labelled normal and ${count(anomalies)} labelled ${anomalies === 1 ? "anomaly" : "anomalies"}`;
}

function command(words) {
  const code = element("code", { tabindex: 0 }, ...words.flatMap((word) => [element("span", {}, word), " "]));
  const copied = element("span", { class: "muted", role: "status" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(words.join(" "));
      copied.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(code); // browsers give the clipboard to HTTPS and localhost only
      copied.textContent = "Press Ctrl+C to copy it.";
    }
  };
  return element(
    "div",
    { class: "command" },
    code,
    element("button", { type: "button", class: "primary", onclick: copy }, "Copy"),
    copied,
  );
}
