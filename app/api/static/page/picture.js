// One picture on its way: waiting, then scored, or refused (the file's fault), or failed (the service's).

export class Picture {
  static #made = 0;

  constructor(name, blob) {
    this.id = ++Picture.#made;
    this.name = name;
    this.blob = blob;
    this.result = null;
    this.reason = null;
    this.revision = 0;
    this.state = "waiting";
  }

  /** Another blob in its place; what was known stays to be seen until the answer comes. */
  redraw(blob) {
    this.blob = blob;
    this.wait();
  }

  /** Must be scored (again); answers that are under way no longer count. */
  wait() {
    this.revision += 1;
    this.state = "waiting";
  }

  /** Another model is asked: what this one said does not count. */
  forget() {
    this.result = null;
    this.reason = null;
    this.wait();
  }

  scored(result) {
    Object.assign(this, { state: "scored", result, reason: null });
  }

  refused(reason) {
    Object.assign(this, { state: "refused", result: null, reason });
  }

  failed(reason) {
    Object.assign(this, { state: "failed", result: null, reason });
  }
}
