// Scores waiting images in batches, one request at a time, and goes on by itself after an outage.

import { count, sentence } from "../format.js";
import { request } from "./http.js";
import { unpackPictures } from "./pictures.js";

const BATCH_IMAGES = 16;
const BATCH_BYTES = 8 * 2 ** 20;
const ATTEMPTS = 6;
const LONGEST_PAUSE_S = 30;
const NO_RESPONSE = 0;
const UNAUTHORIZED = 401; // no key was entered
const TOO_LARGE = 413;
const BUSY = [429, 503];
const OUTAGE = [NO_RESPONSE, ...BUSY, 502]; // 502: from a proxy whose service is away
const SERVER_ERROR = 500; // this status and above: the service is at fault, not the file
const TIMED_OUT = 504;

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export class ScoringQueue {
  #running = false;
  #outages = 0;
  #endPause = () => {};

  /** `onResponse` is called after each request with the model that scored, or null if the request failed. */
  constructor({ modelName, images, onResponse, onNotice }) {
    Object.assign(this, { modelName, images, onResponse, onNotice });
    addEventListener("online", () => this.#endPause());
  }

  /** Runs until no image is waiting. Images added meanwhile are scored too. */
  async run() {
    if (this.#running) return;
    this.#running = true;
    for (let batch; (batch = nextBatch(this.#withState("waiting"))).length > 0; ) await this.#scoreBatch(batch);
    if (this.#outages > 0) this.#recovered(); // the images that waited were removed
    this.#running = false;
  }

  async #scoreBatch(batch) {
    const revisions = batch.map((image) => image.revision);
    let answer;
    try {
      answer = await this.#requestOutcomes(this.modelName(), batch);
    } catch (problem) {
      await this.#pause(problem);
      return;
    }
    this.#recovered();
    const { model, outcomes } = answer;
    const current = batch.filter((image, index) => image.revision === revisions[index]);
    current.forEach((image) => outcomes[batch.indexOf(image)](image));
    const failed = current.find((image) => image.state === "failed");
    if (failed) this.#stop(failed.reason);
    await this.onResponse(model, current);
  }

  /** Waits until it is worth trying again: after some seconds, when the network is back, or when told. */
  async #pause(problem) {
    this.#outages += 1;
    const seconds = Math.max(problem.retryAfter ?? 0, Math.min(2 ** (this.#outages - 1), LONGEST_PAUSE_S));
    const over = new Promise((resolve) => (this.#endPause = resolve));
    this.onNotice(this.#waitingText(problem, seconds), this.#endPause);
    await Promise.race([sleep(seconds), over]);
  }

  #waitingText(problem, seconds) {
    if (BUSY.includes(problem.status)) return `Busy: ${problem.message}. Trying again in ${seconds} s.`;
    const waiting = this.#withState("waiting").length;
    return `${problem.message} ${waiting === 1 ? "1 image waits" : `${count(waiting)} images wait`} and will be sent when it answers.`;
  }

  #recovered() {
    this.#outages = 0;
    this.onNotice("");
  }

  /** Fails all waiting images, because they would fail for the same reason, and offers to try again. */
  #stop(reason) {
    this.#withState("waiting").forEach((image) => image.markFailed(reason));
    this.onNotice(sentence(reason), () => {
      this.#withState("failed").forEach((image) => image.requeue());
      this.run();
    });
  }

  #withState(state) {
    return this.images().filter((image) => image.state === state);
  }

  /** The model that scored, and for each image a function that applies its outcome. Throws the Problem of an outage. */
  async #requestOutcomes(model, batch) {
    try {
      const response = await scoreImages(batch, { model, include: "input,reconstruction,error_map" });
      return { model: response.model, outcomes: response.results.map((outcome) => applyOutcome(outcome, response.model)) };
    } catch (problem) {
      if (problem.errors) return { model: null, outcomes: problem.errors.map((error) => applyOutcome({ error })) };
      if (OUTAGE.includes(problem.status)) throw problem;
      if ([TOO_LARGE, TIMED_OUT].includes(problem.status) && batch.length > 1) return this.#requestHalves(model, batch);
      const isFileError = problem.status >= 400 && problem.status < SERVER_ERROR && problem.status !== UNAUTHORIZED;
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
}

/** POST /score. Retries the statuses in `retryOn` a few times, at the earliest after the response's Retry-After. */
export async function scoreImages(images, query, { retryOn = [], signal = null } = {}) {
  for (let attempt = 1; ; attempt++) {
    const body = new FormData();
    for (const { blob, name } of images) body.append("files", blob, name);
    try {
      return await request(`score?${new URLSearchParams(query)}`, { method: "POST", body, signal });
    } catch (problem) {
      if (!retryOn.includes(problem.status) || attempt === ATTEMPTS) throw problem;
      await sleep((problem.retryAfter ?? 1) * attempt);
    }
  }
}

const applyOutcome = (outcome, model) => (image) =>
  outcome.status === "scored"
    ? image.markScored(unpackPictures(outcome), model)
    : image.markRejected((outcome.error ?? outcome).detail);

function nextBatch(waiting) {
  let bytes = 0;
  const fits = (image, index) => index === 0 || (index < BATCH_IMAGES && (bytes += image.blob.size) <= BATCH_BYTES);
  const end = waiting.findIndex((image, index) => !fits(image, index));
  return end < 0 ? waiting : waiting.slice(0, end);
}
