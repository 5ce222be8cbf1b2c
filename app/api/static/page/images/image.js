// One image in the list. States: waiting, then scored, rejected (the file is at fault) or failed (the service is).

export class ImageEntry {
  constructor(name, blob) {
    this.name = name;
    this.blob = blob;
    this.result = null;
    this.reason = null;
    this.revision = 0;
    this.state = "waiting";
  }

  /** Replaces the file. The old result stays visible until the new one arrives. */
  replace(blob) {
    this.blob = blob;
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
    this.requeue();
  }

  markScored(result) {
    Object.assign(this, { state: "scored", result, reason: null });
  }

  markRejected(reason) {
    Object.assign(this, { state: "rejected", result: null, reason });
  }

  markFailed(reason) {
    Object.assign(this, { state: "failed", result: null, reason });
  }
}
