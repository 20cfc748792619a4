// Forms that change something: their fields become the JSON of a request, its answer is told here.
//
//   data-send    address            data-method  POST, PATCH or DELETE
//   data-then    "reload", or where to go; an address that ends in / is followed by the answer's id
//   data-sure    a question to answer before

import { onceKey } from "./once.js";
import { problemNote } from "./problem.js";

for (const form of document.querySelectorAll("form[data-send]")) {
  const note = document.createElement("div");
  note.setAttribute("role", "alert");
  form.append(note);
  let key = onceKey();
  form.addEventListener("input", () => { key = onceKey(); });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.dataset.sure && !confirm(form.dataset.sure)) return;
    const small = [...form.querySelectorAll("[data-kind=percent]")].find((input) => input.value > 0 && input.value < 1);
    if (small && !confirm(`${small.value}% is less than one in a hundred. Is that meant?`)) return;
    const { send, method, then } = form.dataset;
    const button = form.querySelector("button");
    button.disabled = true;
    note.replaceChildren();
    try {
      const headers = { "Content-Type": "application/json" };
      if (method === "POST") headers["Idempotency-Key"] = key;
      const body = method === "DELETE" ? undefined : JSON.stringify(fields(form));
      const answer = await fetch(send, { method, headers, body });
      if (!answer.ok) {
        note.replaceChildren(problemNote(await answer.json()));
        return;
      }
      if (then === "reload") location.reload();
      else location.assign(then.endsWith("/") && then.length > 1 && method === "POST"
        ? then + (await answer.json()).id : then);
    } catch {
      note.replaceChildren(problemNote({ title: "No answer", detail: "The service did not answer.", remedy: "Try again in a moment." }));
    } finally {
      button.disabled = false;
    }
  });
}

function fields(form) {
  const found = {};
  for (const input of form.querySelectorAll("[name]")) {
    if (input.value === "" && input.dataset.kind !== "list") continue;
    if (input.dataset.kind === "list") found[input.name] = input.value.split(",").map((each) => each.trim()).filter(Boolean);
    else if (input.dataset.kind === "percent") found[input.name] = Number(input.value) / 100;
    else found[input.name] = input.type === "number" ? Number(input.value) : input.value;
  }
  return found;
}
