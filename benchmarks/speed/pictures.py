"""Sets of photographs to time a job with: windows of scikit-learn's two sample photographs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from app.embedding.archive import ArchiveLimits
from app.embedding.dataset import LabelledImages, read_labelled_images

SIZE = (500, 375)  # pixels, width and height
QUALITY = 90
_WIDTHS = (240, 480)  # of a window, in the photograph's pixels
_PHOTOGRAPHS = ("china", "flower")
_QUARTERS = ("upper left", "upper right", "lower left", "lower right")
_MAX_IMAGE_PIXELS = 1_000_000


def photographs(n_images: int, seed: int = 0) -> bytes:
    """A zip of JPEG files; a class is the quarter of a photograph that a window is cut around."""
    generator = np.random.default_rng(seed)
    sources = {name: Image.fromarray(load_sample_image(f"{name}.jpg")) for name in _PHOTOGRAPHS}
    classes = [(name, quarter) for name in _PHOTOGRAPHS for quarter in range(len(_QUARTERS))]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        for number in range(n_images):
            name, quarter = classes[number % len(classes)]
            box = _window(sources[name].size, quarter, generator)
            picture = sources[name].resize(SIZE, Image.Resampling.BICUBIC, box)
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=QUALITY)
            path = f"{name} {_QUARTERS[quarter]}/{number:05}.jpg"
            files.writestr(zipfile.ZipInfo(path), file.getvalue())
    return archive.getvalue()


def read(archive: bytes, size: int) -> LabelledImages:
    """The set as a job reads it, at a probe's input size."""
    images, _ = read_labelled_images(
        [io.BytesIO(archive)],
        size=size,
        label_kind="auto",
        limits=ArchiveLimits(),
        max_image_pixels=_MAX_IMAGE_PIXELS,
    )
    return images


def _window(
    size: tuple[int, int], quarter: int, generator: np.random.Generator
) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, with the proportions of SIZE and the middle in the quarter."""
    width = generator.uniform(*_WIDTHS)
    extents = (width, width * SIZE[1] / SIZE[0])
    starts = tuple(_starts(size, extents, (quarter % 2, quarter // 2), generator))
    return (starts[0], starts[1], starts[0] + extents[0], starts[1] + extents[1])


def _starts(
    size: tuple[int, int],
    extents: tuple[float, float],
    halves: tuple[int, int],
    generator: np.random.Generator,
) -> Iterator[float]:
    for whole, extent, half in zip(size, extents, halves, strict=True):
        middle, most = (whole - extent) / 2, whole - extent
        yield generator.uniform(*((0.0, middle), (middle, most))[half])
