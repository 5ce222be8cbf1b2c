// Short messages at the bottom of the page, and lasting ones above its content.

import { byId, element } from "../dom.js";

const shown = new Map(); // channel → message; the newest is visible

/** Shows a message of a channel in place of its last one, with a button if there is an action; "" hides it. */
export function notify(channel, text, action = null, label = "Try again") {
  const last = shown.get(channel);
  if (last?.text === text && text !== "") return Object.assign(last, { action, label });
  shown.delete(channel);
  if (text !== "") shown.set(channel, { text, action, label });
  return render();
}

function render() {
  const [channel, message] = [...shown].at(-1) ?? [null, null];
  byId("notice").hidden = message === null;
  byId("notice-text").textContent = message?.text ?? "";
  byId("retry").hidden = !message?.action;
  byId("retry").textContent = message?.label ?? "";
  byId("retry").onclick = () => {
    const { action } = shown.get(channel);
    notify(channel, "");
    action();
  };
}

/** Shows lasting messages, each of a `title` and a `text`; one with an `action` has a button to try again. */
export function showBanners(messages) {
  byId("banners").replaceChildren(
    ...messages.map(({ title, text, action }) =>
      element(
        "div",
        { class: "banner" },
        element("strong", {}, title),
        element("p", {}, text),
        ...(action ? [element("button", { type: "button", onclick: action }, "Try again")] : []),
      ),
    ),
  );
}
