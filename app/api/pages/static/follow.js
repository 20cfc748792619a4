// A job's progress, as it goes; once it has ended the page is fetched anew.

import { shown } from "./refused.js";

const ENDED = new Set(["succeeded", "refused", "failed", "cancelled"]);
const PHASES = {
  queued: "Waiting for a worker", fetch: "Fetching the archive", intake: "Reading the images",
  features: "Looking at the images", head: "Fitting the classifier", fisher: "Measuring the information",
};

for (const note of document.querySelectorAll("[data-job]")) {
  const says = note.querySelector("[role=status]");
  const bar = note.querySelector("progress");
  const events = new EventSource(`${note.dataset.job}/events`);
  events.addEventListener("progress", (event) => {
    const job = JSON.parse(event.data);
    if (ENDED.has(job.state)) {
      events.close();
      location.reload();
      return;
    }
    const badge = document.querySelector("#task-state");
    if (badge && job.state === "running") badge.textContent = "embedding";
    const phase = PHASES[job.phase] ?? job.phase;
    const part = job.total ? `: ${job.done} of ${job.total}` : "";
    const left = job.remaining_seconds ? `, some ${Math.ceil(job.remaining_seconds)} s left` : "";
    says.textContent = `${phase}${part}${left}.`;
    if (job.total) bar.value = job.done / job.total;
    else bar.removeAttribute("value");
  });
  note.querySelector("[data-cancel]")?.addEventListener("click", async (event) => {
    event.target.disabled = true;
    await fetch(note.dataset.job, { method: "DELETE" });
  });
}

for (const list of document.querySelectorAll("[data-refused]")) shown(list);
