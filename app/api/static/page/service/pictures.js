// The pictures in an answer, as blobs: the browser can keep them outside of the page's memory.

export const PICTURES = ["input", "reconstruction", "error_map"];

/** The result of an image, with `pictures` in place of its data URIs. */
export function unpackPictures(outcome) {
  const result = { ...outcome, pictures: {} };
  for (const part of PICTURES) {
    delete result[part];
    if (outcome[part]) result.pictures[part] = fromBase64(outcome[part].slice(outcome[part].indexOf(",") + 1));
  }
  return result;
}

/** A PNG file. */
export function fromBase64(text) {
  const bytes = atob(text);
  return new Blob([Uint8Array.from(bytes, (character) => character.charCodeAt(0))], { type: "image/png" });
}
