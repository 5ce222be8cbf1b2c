// Scores waiting images in batches, one request at a time, and retries while the service is busy.

import { request } from "./api.js";
import { sentence } from "./format.js";

const BATCH_IMAGES = 16;
const BATCH_BYTES = 8 * 2 ** 20;
const ATTEMPTS = 6;
const TOO_LARGE = 413;
const BUSY = [429, 503];
const UNAUTHORIZED = 401; // no key was entered
const SERVER_ERROR = 500; // this status and above: the service is at fault, not the file

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export class ScoringQueue {
  #running = false;

  /** `onResponse` is called after each request with the model that scored, or null if the request failed. */
  constructor({ modelName, images, onResponse, onNotice }) {
    Object.assign(this, { modelName, images, onResponse, onNotice });
  }

  /** Runs until no image is waiting. Images added meanwhile are scored too. */
  async run() {
    if (this.#running) return;
    this.#running = true;
    for (let batch; (batch = nextBatch(this.#withState("waiting"))).length > 0; ) await this.#scoreBatch(batch);
    this.#running = false;
  }

  async #scoreBatch(batch) {
    const revisions = batch.map((image) => image.revision);
    const { model, outcomes } = await this.#requestOutcomes(this.modelName(), batch);
    const current = batch.map((image, index) => image.revision === revisions[index]);
    batch.forEach((image, index) => current[index] && outcomes[index](image));
    const failed = batch.find((image) => image.state === "failed");
    if (failed) this.#stop(failed.reason);
    else this.#requeueFailed(); // the service is available again
    await this.onResponse(model);
  }

  /** Fails all waiting images, because they would fail for the same reason, and offers to try again. */
  #stop(reason) {
    this.#withState("waiting").forEach((image) => image.markFailed(reason));
    this.onNotice(sentence(reason), () => {
      this.#requeueFailed();
      this.run();
    });
  }

  #requeueFailed() {
    this.#withState("failed").forEach((image) => image.requeue());
  }

  #withState(state) {
    return this.images().filter((image) => image.state === state);
  }

  /** The model that scored, and for each image a function that applies its outcome. */
  async #requestOutcomes(model, batch) {
    try {
      const response = await this.#score(model, batch);
      this.onNotice("");
      return { model: response.model, outcomes: response.results.map(applyOutcome) };
    } catch (problem) {
      if (problem.errors) return { model: null, outcomes: problem.errors.map((error) => applyOutcome({ error })) };
      if (problem.status === TOO_LARGE && batch.length > 1) return this.#requestHalves(model, batch);
      const isFileError = problem.status >= 400 && problem.status < SERVER_ERROR && ![...BUSY, UNAUTHORIZED].includes(problem.status);
      const mark = isFileError ? "markRejected" : "markFailed";
      return { model: null, outcomes: batch.map(() => (image) => image[mark](problem.message)) };
    }
  }

  async #requestHalves(model, batch) {
    const half = Math.ceil(batch.length / 2);
    const first = await this.#requestOutcomes(model, batch.slice(0, half));
    const second = await this.#requestOutcomes(model, batch.slice(half));
    return { model: first.model ?? second.model, outcomes: [...first.outcomes, ...second.outcomes] };
  }

  #score(model, batch) {
    const onBusy = (problem, seconds) => this.onNotice(`Busy: ${problem.message}. Trying again in ${seconds} s.`);
    return scoreImages(batch, { model, include: "input,reconstruction,error_map" }, { onBusy });
  }
}

/** POST /score. Retries the statuses in `retryOn`, at the earliest after the response's Retry-After. */
export async function scoreImages(images, query, { retryOn = BUSY, onBusy = () => {}, signal = null }) {
  for (let attempt = 1; ; attempt++) {
    const body = new FormData();
    for (const { blob, name } of images) body.append("files", blob, name);
    try {
      return await request(`score?${new URLSearchParams(query)}`, { method: "POST", body, signal });
    } catch (problem) {
      if (!retryOn.includes(problem.status) || attempt === ATTEMPTS) throw problem;
      const seconds = (problem.retryAfter ?? 1) * attempt;
      onBusy(problem, seconds);
      await sleep(seconds);
    }
  }
}

const applyOutcome = (outcome) => (image) =>
  outcome.status === "scored" ? image.markScored(outcome) : image.markRejected((outcome.error ?? outcome).detail);

function nextBatch(waiting) {
  let bytes = 0;
  const fits = (image, index) => index === 0 || (index < BATCH_IMAGES && (bytes += image.blob.size) <= BATCH_BYTES);
  const end = waiting.findIndex((image, index) => !fits(image, index));
  return end < 0 ? waiting : waiting.slice(0, end);
}
