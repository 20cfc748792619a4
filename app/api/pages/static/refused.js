// Pictures of files that were left out, where this browser has them: of a folder that was dropped
// here, the files are looked at again, never the archive on the server.

const NAME = "task2vec-refused";

export async function keep(taskId, files) {
  // One task's files at a time: they are for the page that is shown next.
  const cache = await caches.open(NAME);
  for (const request of await cache.keys()) await cache.delete(request);
  for (const [path, file] of files) {
    if (file.type.startsWith("image/") && file.size < 2 ** 22) {
      await cache.put(address(taskId, path), new Response(file, { headers: { "Content-Type": file.type } }));
    }
  }
}

export async function shown(list) {
  if (!("caches" in window)) return;
  const cache = await caches.open(NAME);
  for (const item of list.querySelectorAll("[data-path]")) {
    const found = await cache.match(address(list.dataset.refused, item.dataset.path));
    if (!found) continue;
    const picture = document.createElement("img");
    picture.alt = "";
    picture.src = URL.createObjectURL(await found.blob());
    picture.addEventListener("error", () => picture.remove());
    item.prepend(picture);
  }
}

function address(taskId, path) {
  return `/refused/${taskId}/${encodeURIComponent(path)}`;
}
