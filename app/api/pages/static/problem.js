// A problem document as a person reads it.

export function problemNote(problem) {
  const note = document.createElement("div");
  note.className = "note bad";
  const says = document.createElement("p");
  const title = document.createElement("strong");
  title.textContent = `${problem.title}. `;
  says.append(title, problem.detail ?? "");
  note.append(says);
  for (const text of [problem.remedy, ...(problem.errors ?? []).map((each) => `${each.field}: ${each.message}`)]) {
    if (!text) continue;
    const line = document.createElement("p");
    line.textContent = text;
    note.append(line);
  }
  return note;
}
