// Shortcuts of the whole page. They leave text fields, lists and dialogs alone, and sliders except for letters.

const TEXT = "input:not([type=checkbox], [type=radio], [type=range]), select, textarea, dialog";
const CONTROL = "input"; // a box or a slider: it has no use for letters

/** Calls the action of a key: `{ ArrowDown: () => …, j: () => … }`. An action that returns false leaves the key alone. */
export function listenForKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.matches?.(TEXT) || (event.target.matches?.(CONTROL) && !/^[a-z]$/i.test(event.key))) return;
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action && action(event) !== false) event.preventDefault();
  });
}
