// The slider, and the choice of what it limits: alarms among normal images, or false ones among the alarms.

import { byId } from "../dom.js";
import { rateText } from "./rules.js";

const KINDS = ["alarms", "discoveries"]; // the values of the radio buttons, and the names of the model's lists

export class SensitivityControl {
  #places = {}; // of the slider, by kind: kept while the other kind is used

  /** `onChange` is called after the rule of the model has changed. */
  constructor(onChange) {
    this.onChange = onChange;
    this.slider = byId("sensitivity");
    this.choices = KINDS.map((kind) => byId(`limit-${kind}`));
    this.choices.forEach((choice) => choice.addEventListener("change", () => this.#choose()));
    this.slider.addEventListener("input", () => this.#apply());
  }

  /** Takes over the rules of a model, beginning with the one that it was calibrated for. */
  setModel(model) {
    this.model = model;
    const like = model.rules.discoveries.findIndex(({ rate }) => rate <= 0.1);
    this.#places = { alarms: model.rules.alarms.indexOf(model.rule), discoveries: Math.max(like, 0) };
    for (const control of [this.slider, ...this.choices]) control.disabled = false;
    this.choices[0].checked = true;
    this.#choose();
  }

  /** Decides the images by the rule, and says what it means. */
  show(images) {
    this.model.rule.decide(images);
    byId("rule").textContent = this.model.rule.explanation;
  }

  get #kind() {
    return this.choices.find(({ checked }) => checked).value;
  }

  #choose() {
    this.slider.max = this.model.rules[this.#kind].length - 1;
    this.slider.value = this.#places[this.#kind];
    this.#apply();
  }

  #apply() {
    const kind = this.#kind;
    this.#places[kind] = Number(this.slider.value);
    this.model.rule = this.model.rules[kind][this.slider.value];
    const text = rateText(this.model.rule.rate);
    byId("rate").textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
    this.onChange();
  }
}
