// Pictures from outside: dropped files and folders, pasted pictures, samples.

const PICTURE = /\.(png|jpe?g|webp|bmp|gif|tiff?)$/i;

/** Hands over whatever is dropped on or pasted into the document. */
export function listen(document, onFiles) {
  const mark = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) mark(false);
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    mark(false);
    onFiles(await dropped(event.dataTransfer));
  });
  document.addEventListener("paste", (event) => onFiles([...(event.clipboardData?.files ?? [])]));
}

/** A picture of our own as a list of one file. */
export async function fetchFile(url) {
  const response = await fetch(url, { cache: "force-cache" });
  return [new File([await response.blob()], url.split("/").at(-1), { type: "image/png" })];
}

async function dropped(transfer) {
  // Entries must be taken before the first await: afterwards the transfer is empty.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files];
  return (await Promise.all(entries.map((entry) => (entry.isFile ? file(entry) : walk(entry))))).flat();
}

/** The pictures of a folder and of all folders in it; other files there were hardly meant. */
async function walk(folder) {
  const found = [];
  for (const entry of await children(folder)) {
    if (entry.isDirectory) found.push(...(await walk(entry)));
    else if (PICTURE.test(entry.name)) found.push(await file(entry));
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

async function file(entry) {
  const content = await new Promise((resolve, reject) => entry.file(resolve, reject));
  return new File([content], entry.fullPath.replace(/^\//, ""), { type: content.type });
}
