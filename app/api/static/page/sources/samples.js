// Sample images to try: of a model of handwritten digits those of the page, of any other model its own.

import { byId, element } from "../dom.js";
import { requestBlob } from "../service/http.js";

const DIGITS = [
  ["five", "a five"],
  ["another-five", "another five"],
  ["three", "a three"],
  ["seven", "a seven"],
  ["lying-five", "a five lying down"],
  ["noise", "noise"],
].map(([name, kind]) => ({ url: `static/samples/${name}.png`, kind, name: `${name}.png` }));

let urls = [];

/** Shows the samples of a model. `onFile` gets the file of a sample that was clicked. */
export async function showSamples(model, onFile, onError) {
  const samples = model.learnedDigits ? DIGITS : model.samples;
  const shown = samples.map((sample) => ({ ...sample, img: element("img", { alt: sample.kind, width: 112, height: 112 }) }));
  byId("samples-panel").hidden = samples.length === 0;
  byId("samples").replaceChildren(
    ...shown.map(({ url, name, kind, img }) =>
      element(
        "button",
        {
          type: "button",
          onclick: () => requestBlob(url).then((blob) => onFile(new File([blob], name, { type: "image/png" })), onError),
        },
        img,
        ...(model.learnedDigits ? [] : [element("span", { "aria-hidden": "true" }, kind)]),
      ),
    ),
  );
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
  await Promise.allSettled(shown.map(({ url, img }) => fill(img, url))); // without its picture, a sample has its text
}

/** Not by its address: an <img> cannot send a key. */
async function fill(img, url) {
  img.src = URL.createObjectURL(await requestBlob(url));
  urls.push(img.src);
}
