"""Image files on their way out of archives -> pixels, several decoded at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from app.embedding.image import Pixels, UnreadableImageError, decode_image, pixel_count

MAX_DECODERS = 16


def decode_members(
    members: Iterable[tuple[str, bytes]],
    wanted: Mapping[str, str],
    places: Mapping[str, Sequence[int]],
    pixels: Pixels,
    *,
    max_waiting_bytes: int,
    max_image_pixels: int,
    decoders: int | None,
    heard: Callable[[int, int], None],
) -> tuple[dict[str, str], dict[str, int]]:
    """Fills `pixels` in place; tells by digest why an image could not be decoded, and how many
    pixels the file of any other has.

    `members`  names and bytes of all files; `wanted` those to decode, by name their digest
    `places`   by digest the rows that its image goes into

    Decoders, by default as many as the process has cores, at most MAX_DECODERS, run in threads
    (Pillow lets them). What waits for one is never more than `max_waiting_bytes` or a single file,
    and never more than two files a decoder. `heard(done, total)` counts images.
    """
    unreadable: dict[str, str] = {}
    sizes: dict[str, int] = {}
    waiting: deque[tuple[str, int, Future[tuple[Pixels, int]]]] = deque()
    at_once = decoders or min(_cores(), MAX_DECODERS)
    done = 0

    def finish_oldest() -> None:
        nonlocal done
        digest, _, future = waiting.popleft()
        try:
            pixels[places[digest]], sizes[digest] = future.result()
        except UnreadableImageError as error:
            unreadable[digest] = str(error)
        done += 1
        heard(done, len(wanted))

    pool = ThreadPoolExecutor(at_once)
    try:
        for name, data in members:
            if name not in wanted:
                continue
            while waiting and (
                len(waiting) >= 2 * at_once
                or sum(n for _, n, _ in waiting) + len(data) > max_waiting_bytes
            ):
                finish_oldest()
            future = pool.submit(_decoded, data, pixels.shape[1], max_image_pixels)
            waiting.append((wanted[name], len(data), future))
        while waiting:
            finish_oldest()
    finally:
        pool.shutdown(cancel_futures=True)  # whoever cancels does not wait for what is queued
    return unreadable, sizes


def _decoded(data: bytes, size: int, max_pixels: int) -> tuple[Pixels, int]:
    return decode_image(data, size, max_pixels), pixel_count(data)


def _cores() -> int:
    """Cores that this process may use: fewer than there are in a container, say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
