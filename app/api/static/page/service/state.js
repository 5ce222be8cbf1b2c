// What an operator must know about the service, in words: missing models, refused versions, drift.

import { count, sentence } from "../format.js";

/** Messages about the store and the model, most important first. `missing` is the name that was asked for in vain. */
export function stateMessages({ store, model, missing = null, reason = null }) {
  return [
    ...(missing === null ? [] : [missingModel(missing, reason, store)]),
    ...(model === null ? [] : [...refusedVersion(model, store), ...drifted(model), ...warnings(model)]),
  ];
}

function missingModel(name, reason, { models }) {
  const others = models.length === 0 ? "There is no other model." : "Choose another model above; none was put in its place.";
  return {
    title: `The model “${name}” is not available.`,
    text: `${sentence(reason ?? "the store has no model of this name")} ${others}`,
  };
}

function refusedVersion({ name, version }, { refused }) {
  return refused
    .filter((each) => each.name === name)
    .map(({ reason }) => ({
      title: "The newest version of this model is not used.",
      text: `It did not pass verification: ${sentence(reason)} Version ${version} goes on scoring.`,
    }));
}

function drifted({ drift: { verdict, scores, window, since } }) {
  if (verdict !== "changed") return [];
  const from = since ? ` Seen first on ${new Date(since).toLocaleString()}.` : "";
  return [
    {
      title: "The images have changed.",
      text:
        `The last ${count(window)} images score ${scores} than the normal images that the threshold comes from.${from} ` +
        "Check light, camera and product; if the change is wanted, recalibrate the model.",
    },
  ];
}

function warnings({ card }) {
  return card.warnings.map((warning) => ({ title: "The model was published in spite of a doubt.", text: sentence(warning) }));
}
