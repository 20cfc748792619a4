"""The same sets after what a photograph goes through on its way: compression, resizing."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from PIL import Image

from app.reference import pictures
from benchmarks.quality.tasks import QualitySet, spread

CHANGED_TASKS = 15
CHANGED_SIZE = 20


def compressed(data: bytes, quality: int) -> bytes:
    """As a JPEG of that quality, on white."""
    buffer = io.BytesIO()
    pictures.on_white(pictures.opened(data)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def resized(data: bytes) -> bytes:
    """To half its width and back, bicubic."""
    image = pictures.on_white(pictures.opened(data))
    half = (max(1, image.width // 2), max(1, image.height // 2))
    small = image.resize(half, Image.Resampling.BICUBIC)
    return pictures.to_png(small.resize(image.size, Image.Resampling.BICUBIC))


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "jpeg-75": partial(compressed, quality=75),
    "jpeg-30": partial(compressed, quality=30),
    "half-size": resized,
}


def changed_sets(sets: Iterable[QualitySet]) -> Iterator[QualitySet]:
    """Halves A of some tasks, each under every change; `question` becomes the change's name."""
    originals = [s for s in sets if s.kind != "label" and s.half == "A" and s.size == CHANGED_SIZE]
    some = spread(((s.task, s.path[1]) for s in originals), CHANGED_TASKS, "changed")
    for original in originals:
        if original.task in some:
            for name, change in CHANGES.items():
                yield _changed(original, name, change)


def _changed(original: QualitySet, name: str, change: Callable[[bytes], bytes]) -> QualitySet:
    images = tuple((label, change(data)) for label, data in original.images.images)
    return replace(
        original,
        name=f"{original.name}-{name}",
        kind="changed",
        question=name,
        images=replace(original.images, images=images),
    )
