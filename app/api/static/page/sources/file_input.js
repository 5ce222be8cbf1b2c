// Image files from drag and drop (files and folders) and from the clipboard.

// The suffixes of app/files/formats.py; a test compares them.
const IMAGE_NAME = /\.(png|apng|jpg|jpeg|jpe|jfif|mpo|webp|bmp|gif|tif|tiff|avif|avifs|jp2|j2k|jpc|jpf|jpx|j2c)$/i;
const HIDDEN_NAME = /^(\.|@eaDir$|__MACOSX$)/i;

/** Calls `onFiles` with the files that are dropped on the document or pasted into it. */
export function listenForFiles(document, onFiles) {
  const highlight = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    highlight(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) highlight(false);
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    highlight(false);
    onFiles(await droppedFiles(event.dataTransfer));
  });
  document.addEventListener("paste", (event) => onFiles([...(event.clipboardData?.files ?? [])]));
}

async function droppedFiles(transfer) {
  // Entries must be read before the first await: afterwards the transfer is empty.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files];
  return (await Promise.all(entries.map((entry) => (entry.isFile ? readFile(entry) : filesIn(entry))))).flat();
}

/** The image files of a folder and its subfolders; other files, and hidden files and folders, are ignored. */
async function filesIn(folder) {
  const found = [];
  for (const entry of await children(folder)) {
    if (HIDDEN_NAME.test(entry.name)) continue;
    if (entry.isDirectory) found.push(...(await filesIn(entry)));
    else if (IMAGE_NAME.test(entry.name)) found.push(await readFile(entry));
  }
  return found;
}

async function children(folder) {
  const reader = folder.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return all.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    all.push(...some);
  }
}

async function readFile(entry) {
  const content = await new Promise((resolve, reject) => entry.file(resolve, reject));
  return new File([content], entry.fullPath.replace(/^\//, ""), { type: content.type });
}
