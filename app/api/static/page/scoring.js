// Scores what waits, a few pictures per request, one request at a time; patient with a busy service.

import { request } from "./service.js";
import { sentence } from "./words.js";

const BATCH = 16;
const BATCH_BYTES = 8 * 2 ** 20;
const ATTEMPTS = 6;
const TOO_LARGE = 413;
const BUSY = [429, 503];
const AT_FAULT = 500; // from here on it is the service's fault, not the file's

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export class ScoringQueue {
  #running = false;

  /** `onAnswer` hears after each request which model answered, or null if none did. */
  constructor({ modelName, pictures, onAnswer, onNotice }) {
    Object.assign(this, { modelName, pictures, onAnswer, onNotice });
  }

  /** Until nothing waits. Pictures that are added meanwhile are scored too. */
  async run() {
    if (this.#running) return;
    this.#running = true;
    for (let batch; (batch = nextBatch(this.#those("waiting"))).length > 0; ) await this.#scoreBatch(batch);
    this.#running = false;
  }

  async #scoreBatch(batch) {
    const revisions = batch.map((picture) => picture.revision);
    const { model, outcomes } = await this.#outcomes(this.modelName(), batch);
    const current = batch.map((picture, index) => picture.revision === revisions[index]);
    batch.forEach((picture, index) => current[index] && outcomes[index](picture));
    const failed = batch.find((picture) => picture.state === "failed");
    if (failed) this.#giveUp(failed.reason);
    else this.#those("failed").forEach((picture) => picture.wait()); // the service is back
    await this.onAnswer(model);
  }

  /** Asks no more until somebody says so: what waits would only fail too. */
  #giveUp(reason) {
    this.#those("waiting").forEach((picture) => picture.failed(reason));
    this.onNotice(sentence(reason), () => {
      this.#those("failed").forEach((picture) => picture.wait());
      this.run();
    });
  }

  #those(state) {
    return this.pictures().filter((picture) => picture.state === state);
  }

  /** What became of each picture, as functions that tell it. */
  async #outcomes(model, batch) {
    try {
      const answer = await this.#ask(model, batch);
      this.onNotice("");
      return { model: answer.model, outcomes: answer.results.map(tell) };
    } catch (problem) {
      if (problem.errors) return { model: null, outcomes: problem.errors.map((error) => tell({ error })) };
      if (problem.status === TOO_LARGE && batch.length > 1) {
        const half = Math.ceil(batch.length / 2);
        const parts = [await this.#outcomes(model, batch.slice(0, half)), await this.#outcomes(model, batch.slice(half))];
        return { model: parts[0].model ?? parts[1].model, outcomes: parts.flatMap((part) => part.outcomes) };
      }
      const isFiles = problem.status >= 400 && problem.status < AT_FAULT && !BUSY.includes(problem.status);
      const end = isFiles ? "refused" : "failed";
      return { model: null, outcomes: batch.map(() => (picture) => picture[end](problem.message)) };
    }
  }

  #ask(model, batch) {
    const onBusy = (problem, seconds) => this.onNotice(`One moment: ${problem.message}. Trying again in ${seconds} s.`);
    return score(batch, { model, include: "input,reconstruction,error_map" }, { onBusy });
  }
}

/** Asks again while the service says with one of the statuses `busy` that it is, and never sooner than it says. */
export async function score(pictures, query, { busy = BUSY, onBusy = () => {}, signal = null }) {
  for (let attempt = 1; ; attempt++) {
    const body = new FormData();
    for (const { blob, name } of pictures) body.append("files", blob, name);
    try {
      return await request(`score?${new URLSearchParams(query)}`, { method: "POST", body, signal });
    } catch (problem) {
      if (!busy.includes(problem.status) || attempt === ATTEMPTS) throw problem;
      const seconds = (problem.retryAfter ?? 1) * attempt;
      onBusy(problem, seconds);
      await sleep(seconds);
    }
  }
}

const tell = (outcome) => (picture) =>
  outcome.status === "scored" ? picture.scored(outcome) : picture.refused((outcome.error ?? outcome).detail);

function nextBatch(waiting) {
  let bytes = 0;
  const fits = (picture, index) => index === 0 || (index < BATCH && (bytes += picture.blob.size) <= BATCH_BYTES);
  const end = waiting.findIndex((picture, index) => !fits(picture, index));
  return end < 0 ? waiting : waiting.slice(0, end);
}
