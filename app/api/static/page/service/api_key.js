// The API key: asked for when the service requires it, and kept until the tab is closed.

import { byId } from "../dom.js";

const NAME = "anomaly-api-key";

let asked = null; // the answer that requests wait for, while the dialog is open

/** The key that was entered in this tab, or null. */
export const storedKey = () => sessionStorage.getItem(NAME);

/** Whether a key was entered. All requests that ask meanwhile share one dialog. */
export function askForKey(wasWrong) {
  asked ??= showDialog(wasWrong).finally(() => (asked = null));
  return asked;
}

function showDialog(wasWrong) {
  const [dialog, input] = [byId("key"), byId("key-input")];
  byId("key-wrong").hidden = !wasWrong;
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    byId("key-form").onsubmit = (event) => {
      event.preventDefault(); // the page's policy forbids sending forms
      sessionStorage.setItem(NAME, input.value.trim());
      dialog.close("entered");
    };
    dialog.onclose = () => {
      resolve(dialog.returnValue === "entered");
      dialog.returnValue = "";
    };
  });
}
