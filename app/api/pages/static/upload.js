// An archive, or a folder packed as one here, on its way to the service.

import { onceKey } from "./once.js";
import { problemNote } from "./problem.js";
import { keep } from "./refused.js";

const form = document.querySelector("#upload");

if (form) {
  const says = form.querySelector("#sending-says");
  const bar = form.querySelector("#sending-bar");
  const problem = form.querySelector("#upload-problem");
  let stop = () => {};

  for (const button of form.querySelectorAll("[data-picks]")) {
    button.addEventListener("click", () => form.querySelector(`#${button.dataset.picks}`).click());
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector("#stop").addEventListener("click", () => stop());
  form.querySelector("#archive").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) send(file, file.name);
    event.target.value = "";
  });
  form.querySelector("#folder").addEventListener("change", (event) => {
    const files = [...event.target.files].map((file) => [file.webkitRelativePath, file]);
    if (files.length) pack(files);
    event.target.value = "";
  });
  for (const kind of ["dragenter", "dragover"]) {
    form.addEventListener(kind, (event) => { event.preventDefault(); form.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) {
    form.addEventListener(kind, () => form.classList.remove("over"));
  }
  form.addEventListener("drop", async (event) => {
    event.preventDefault();
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    if (entries.length === 1 && entries[0].isFile) {
      const file = await new Promise((done, fail) => entries[0].file(done, fail));
      send(file, file.name);
      return;
    }
    const files = [];
    for (const entry of entries) await walk(entry, files);
    if (files.length) pack(files);
  });

  async function walk(entry, files) {
    if (entry.name.startsWith(".")) return;
    if (entry.isFile) {
      const file = await new Promise((done, fail) => entry.file(done, fail));
      files.push([entry.fullPath.slice(1), file]);
      return;
    }
    const reader = entry.createReader();
    for (;;) { // a reader gives a hundred at a time, then none
      const some = await new Promise((done, fail) => reader.readEntries(done, fail));
      if (!some.length) return;
      for (const each of some) await walk(each, files);
    }
  }

  // Images hardly shrink: they are stored. What one folder holds goes without that folder's name.
  async function pack(found) {
    const visible = found.filter(([path]) => !path.split("/").some((part) => part.startsWith(".")));
    const tops = new Set(visible.map(([path]) => path.split("/")[0]));
    const cut = tops.size === 1 && visible.some(([path]) => path.split("/").length > 2) ? [...tops][0].length + 1 : 0;
    const files = visible.map(([path, file]) => [path.slice(cut), file]);
    const pieces = [];
    begin();
    stop = () => {};
    const zip = new fflate.Zip((_, piece) => pieces.push(new Blob([piece])));
    for (const [index, [path, file]] of files.entries()) {
      const entry = new fflate.ZipPassThrough(path);
      entry.mtime = new Date(1980, 0, 1); // the same files are the same bytes
      zip.add(entry);
      entry.push(new Uint8Array(await file.arrayBuffer()), true);
      tell(`Packing ${index + 1} of ${files.length} files.`, index / files.length);
    }
    zip.end();
    const name = cut ? [...tops][0] : "folder";
    send(new Blob(pieces), `${name}.zip`);
  }

  function send(archive, filename) {
    problem.hidden = true;
    if (archive.size > Number(form.dataset.most)) {
      tellProblem({ title: "Too large", detail: `${megabytes(archive.size)} are more than the ${megabytes(Number(form.dataset.most))} that are taken here.`, remedy: "Send fewer or smaller images." });
      return;
    }
    begin();
    const name = form.querySelector("#name").value.trim();
    const body = new FormData();
    body.append("metadata", new Blob([JSON.stringify(name ? { name } : {})], { type: "application/json" }));
    body.append("archive", archive, filename);
    const request = new XMLHttpRequest();
    request.open("POST", form.dataset.to);
    request.setRequestHeader("Idempotency-Key", onceKey());
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      tell(`Sent ${megabytes(event.loaded)} of ${megabytes(event.total)}.`, event.loaded / event.total);
    });
    request.upload.addEventListener("load", () => tell("Sent; the archive is being checked.", null));
    request.addEventListener("load", async () => {
      if (request.status === 202) {
        try { await keep(request.response.id, archive); } catch { /* only pictures are lost */ }
        location.assign(form.dataset.task + request.response.id);
        return;
      }
      tellProblem(request.response ?? { title: "Not taken", detail: `The service answered ${request.status}.` });
    });
    request.addEventListener("error", () => tellProblem({ title: "No answer", detail: "The connection broke.", remedy: "Send it again." }));
    request.addEventListener("abort", end);
    stop = () => request.abort();
    request.send(body);
  }

  function begin() {
    problem.hidden = true;
    form.querySelector("#sending").hidden = false;
    tell("Sending.", 0);
  }
  function end() { form.querySelector("#sending").hidden = true; }
  function tell(text, share) {
    says.textContent = text;
    if (share === null) bar.removeAttribute("value");
    else bar.value = share;
  }
  function tellProblem(document) {
    end();
    problem.replaceChildren(problemNote(document));
    problem.hidden = false;
  }
}

function megabytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
