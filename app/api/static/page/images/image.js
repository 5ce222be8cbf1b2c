// One image in the list. States: waiting, then scored, rejected (the file is at fault) or failed (the service is).

let added = 0;

export class ImageEntry {
  constructor(name, blob) {
    this.position = Date.now() + added / 1e4; // the order in which images were added
    this.id = `${Date.now()}-${added++}-${Math.random().toString(36).slice(2)}`; // randomUUID needs HTTPS
    this.name = name;
    this.blob = blob;
    this.thumbnail = null;
    this.result = null;
    this.reason = null;
    this.decision = null; // { verdict, comment, sent }: what an operator said
    this.revision = 0;
    this.state = "waiting";
  }

  /** An image of an earlier visit. */
  static restore({ id, name, blob, result, reason, decision, state, position }) {
    const image = new ImageEntry(name, blob);
    return Object.assign(image, { id, result, reason, decision, position, state: state === "failed" ? "waiting" : state });
  }

  /** Replaces the file. The old result stays visible until the new one arrives. */
  replace(blob) {
    this.blob = blob;
    this.thumbnail = null;
    this.requeue();
  }

  /** Queues the image for scoring; responses to earlier requests are ignored. */
  requeue() {
    this.revision += 1;
    this.state = "waiting";
  }

  /** Discards the result, because the model or its version changed, and queues the image again. */
  reset() {
    this.result = null;
    this.reason = null;
    this.decision = null; // it was about that result
    this.requeue();
  }

  /** `by` is the model's name and version. */
  markScored(result, by) {
    Object.assign(this, { state: "scored", result: { ...result, by }, reason: null, decision: null });
  }

  markRejected(reason) {
    Object.assign(this, { state: "rejected", result: null, reason });
  }

  markFailed(reason) {
    Object.assign(this, { state: "failed", result: null, reason });
  }
}
