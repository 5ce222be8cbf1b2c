// Shortcuts of the whole page. They leave text fields, lists, sliders and dialogs alone.

const OWN_KEYS = "input, select, textarea, dialog";

/** Calls the action of a key: `{ ArrowDown: () => …, j: () => … }`. An action that returns false leaves the key alone. */
export function listenForKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.matches?.(OWN_KEYS)) return;
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action && action(event) !== false) event.preventDefault();
  });
}
