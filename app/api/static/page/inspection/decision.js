// Right or wrong: what an operator says about a verdict. Decisions are sent at once, and again after an outage.

import { byId } from "../dom.js";
import { sendLabel } from "../service/labels.js";

const OPERATOR = "anomaly-operator"; // in localStorage: asked for once in each browser
const OPPOSITE = { anomaly: "normal", normal: "anomaly" };
const RETRY_S = 5;

export class Decisions {
  #sending = false;
  #decided = []; // the images of this visit, in the order of the decisions

  /**
   * `onDecision` is called with an image after a decision on it, and again when that is stored; `onBack` with an image
   * that is to be decided again.
   */
  constructor({ images, onDecision, onBack, onProblem }) {
    Object.assign(this, { images, onDecision, onBack, onProblem, imagesKept: false });
    byId("right").addEventListener("click", () => this.decide(true));
    byId("wrong").addEventListener("click", () => this.decide(false));
    byId("decision").addEventListener("submit", (event) => {
      event.preventDefault(); // Enter ends the comment, and the keys decide again
      byId("stage").focus();
    });
    byId("operator").addEventListener("click", () => this.#askForName());
    this.#showOperator();
  }

  /** Enables the buttons for an image whose label can be stored. */
  show(image, model) {
    const can = Boolean(image?.result?.id) && image.state === "scored";
    if (image !== this.image) byId("comment").value = image?.decision?.comment ?? "";
    Object.assign(this, { image, model, can });
    for (const id of ["right", "wrong", "comment"]) byId(id).disabled = !can;
    const said = image?.decision?.verdict ?? null;
    byId("right").ariaPressed = can && said === model.verdict(image);
    byId("wrong").ariaPressed = can && said !== null && said !== model.verdict(image);
  }

  /** Keeps what the operator said about the shown image. Returns false if there is nothing to decide. */
  decide(isRight) {
    if (!this.can) return false;
    this.#decide(this.image, isRight);
    return true;
  }

  /** Shows the image of the last decision again. The decision stays until it is replaced. */
  back() {
    const present = new Set(this.images());
    let image = null;
    while (this.#decided.length > 0 && (image === null || image === this.image)) {
      const last = this.#decided.pop();
      if (present.has(last)) image = last;
    }
    return image !== null && this.onBack(image);
  }

  /** Puts the cursor into the comment. Returns false if there is nothing to comment on. */
  comment() {
    if (this.can) byId("comment").focus();
    return this.can;
  }

  async #decide(image, isRight) {
    if (localStorage.getItem(OPERATOR) === null) await this.#askForName();
    const verdict = this.model.verdict(image);
    if (verdict === null) return;
    this.#decided.push(image);
    image.decision = { verdict: isRight ? verdict : OPPOSITE[verdict], comment: byId("comment").value.trim(), sent: false };
    this.onDecision(image, true);
    await this.send();
  }

  /** Sends the decisions that the service does not have yet. */
  async send() {
    if (this.#sending) return;
    this.#sending = true;
    for (let image; (image = this.images().find(({ decision, result }) => decision?.sent === false && result?.id)); ) {
      const { decision } = image;
      try {
        await sendLabel(image, { ...decision, operator: localStorage.getItem(OPERATOR) }, { withImage: this.imagesKept });
      } catch (problem) {
        const waits = this.images().filter((each) => each.decision?.sent === false).length;
        this.onProblem(`${problem.message} ${waits} ${waits === 1 ? "decision is" : "decisions are"} not stored yet.`, () => this.send());
        setTimeout(() => this.send(), 1000 * RETRY_S);
        break;
      }
      if (image.decision === decision) image.decision = { ...decision, sent: true };
      this.onProblem("");
      this.onDecision(image, false);
    }
    this.#sending = false;
  }

  #showOperator() {
    byId("operator").textContent = localStorage.getItem(OPERATOR) || "Set your name";
  }

  /** Resolves when the dialog is closed. An empty name, or none, is an answer too. */
  #askForName() {
    const [dialog, input] = [byId("operator-dialog"), byId("operator-input")];
    input.value = localStorage.getItem(OPERATOR) ?? "";
    dialog.showModal();
    return new Promise((resolve) => {
      byId("operator-form").onsubmit = (event) => {
        event.preventDefault();
        dialog.close();
      };
      dialog.onclose = () => {
        localStorage.setItem(OPERATOR, input.value.trim());
        this.#showOperator();
        resolve();
      };
    });
  }
}
