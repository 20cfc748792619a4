// Pictures of files that were left out, where this browser has them: of what was sent from here, the
// archive is looked into again, never the one on the server.

const NAME = "task2vec-refused";
const MOST = 2 ** 28; // bytes of an archive

export async function keep(taskId, archive) {
  // One task's at a time: it is for the page that is shown next.
  const cache = await caches.open(NAME);
  for (const request of await cache.keys()) await cache.delete(request);
  if (archive.size <= MOST) await cache.put(address(taskId), new Response(archive));
}

export async function shown(list) {
  if (!("caches" in window)) return; // not over plain HTTP from another machine
  const found = await (await caches.open(NAME)).match(address(list.dataset.refused));
  if (!found) return;
  const items = new Map([...list.querySelectorAll("[data-path]")].map((item) => [item.dataset.path, item]));
  for (const [path, bytes] of Object.entries(unpacked(await found.arrayBuffer(), items))) {
    const picture = document.createElement("img");
    picture.alt = "";
    picture.addEventListener("error", () => picture.remove()); // most are left out since they are none
    picture.src = URL.createObjectURL(new Blob([bytes], { type: path.endsWith(".svg") ? "image/svg+xml" : "" }));
    items.get(path).prepend(picture);
  }
}

function unpacked(archive, wanted) {
  try {
    return fflate.unzipSync(new Uint8Array(archive), { filter: (file) => wanted.has(file.name) });
  } catch { // no zip
    return {};
  }
}

function address(taskId) {
  return `/refused/${taskId}`;
}
