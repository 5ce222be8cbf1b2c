// The images and their results, kept in the browser (IndexedDB) so that a reload loses nothing.

import { ImageEntry } from "./image.js";

const DATABASE = "anomaly-session";
const VERSION = 1;
const FILES = "files"; // id → the file; written once, it can be large
const OUTCOMES = "outcomes"; // id → what is known about it

export class Session {
  #database = null; // stays null where the browser keeps nothing, as in private windows
  #written = new Map(); // id → the file that is kept
  #changed = new Set();
  #timer = 0;

  /** `onFull` is called once, when the browser has no more room. */
  constructor(onFull) {
    this.onFull = onFull;
  }

  /** The images of the last visit, in the order in which they were added. */
  async restore() {
    try {
      this.#database = await open();
      const [files, outcomes] = await Promise.all([this.#entries(FILES), this.#entries(OUTCOMES)]);
      const kept = [...outcomes].filter(([id]) => files.has(id)).toSorted(([, one], [, other]) => one.position - other.position);
      kept.forEach(([id]) => this.#written.set(id, files.get(id)));
      return kept.map(([id, outcome]) => ImageEntry.restore({ id, blob: files.get(id), ...outcome }));
    } catch {
      return [];
    }
  }

  /** Keeps the images that have changed; those of a moment are written together. */
  save(images) {
    images.forEach((image) => this.#changed.add(image));
    this.#timer ||= setTimeout(() => this.#write());
  }

  remove(images) {
    this.#transact((files, outcomes) => {
      for (const image of images) {
        this.#changed.delete(image);
        this.#written.delete(image.id);
        files.delete(image.id);
        outcomes.delete(image.id);
      }
    });
  }

  #write() {
    this.#timer = 0;
    const changed = [...this.#changed];
    this.#changed.clear();
    this.#transact((files, outcomes) => {
      for (const image of changed) {
        if (this.#written.get(image.id) !== image.blob) files.put(image.blob, image.id);
        this.#written.set(image.id, image.blob);
        const { name, state, result, reason, decision, position } = image;
        outcomes.put({ name, state, result, reason, decision, position }, image.id);
      }
    });
  }

  #transact(change) {
    if (this.#database === null) return;
    const transaction = this.#database.transaction([FILES, OUTCOMES], "readwrite");
    transaction.onabort = () => this.onFull();
    change(transaction.objectStore(FILES), transaction.objectStore(OUTCOMES));
  }

  async #entries(name) {
    const store = this.#database.transaction(name).objectStore(name);
    const [ids, values] = await Promise.all([done(store.getAllKeys()), done(store.getAll())]);
    return new Map(ids.map((id, index) => [id, values[index]]));
  }
}

function open() {
  const request = indexedDB.open(DATABASE, VERSION);
  request.onupgradeneeded = () => [FILES, OUTCOMES].forEach((name) => request.result.createObjectStore(name));
  return done(request);
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
