// Operators' labels: sent to the service, read back for review, and downloaded.

import { request, requestBlob } from "./http.js";

const MEDIA_TYPE = "application/jsonl";

/** The last labels, and whether the service stores labels and images. */
export const listLabels = (limit = 200) => request(`feedback?${new URLSearchParams({ limit })}`);

/** All labels that the service has, the oldest first. */
export async function allLabels() {
  const text = await (await requestBlob("feedback", MEDIA_TYPE)).text();
  return text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

/** Stores what an operator said about an image; with the image, if the service stores images. */
export async function sendLabel(image, { verdict, comment, operator }, { withImage }) {
  const body = {
    id: image.result.id,
    verdict,
    filename: image.name.slice(-255),
    comment: comment || null,
    operator: operator || null,
    ...(withImage ? { image: await toDataUri(image.blob) } : {}),
  };
  return request("feedback", { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
}

export const labelledImage = (name) => requestBlob(`feedback/images/${encodeURIComponent(name)}`);

function toDataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
