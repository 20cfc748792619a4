"""A few images of each class side by side, small: what a person looks at to know a set again."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.embedding.dataset import LabelledImages
from app.embedding.image import Pixels

SIDE = 56  # pixels of one image
IMAGES = 8  # of a class, at most
CLASSES = 48  # the largest ones; a person looks at no more

_QUALITY = 70


@dataclass(frozen=True, slots=True)
class Strip:
    """`picture` is a WebP file of up to IMAGES images, each SIDE pixels wide, from the left."""

    label: str
    picture: bytes


def class_strips(images: LabelledImages) -> list[Strip]:
    """Of the CLASSES largest classes, in the set's order of classes.

    Images are the first of a class in the order of their digests, squashed to a square as the probe
    sees them: the same bytes give the same strip.
    """
    of_class = _members(images)
    largest = sorted(range(len(of_class)), key=lambda index: -len(of_class[index]))[:CLASSES]
    return [
        Strip(images.classes[index], _strip(images.pixels[of_class[index][:IMAGES]]))
        for index in sorted(largest)
    ]


def _members(images: LabelledImages) -> list[npt.NDArray[np.int64]]:
    """Of each class the rows of its images, by digest."""
    by_digest = np.argsort(np.array(images.digests), kind="stable")
    labels = images.labels[by_digest]
    of_class = labels.T if labels.ndim == 2 else labels == np.arange(len(images.classes))[:, None]
    return [by_digest[members] for members in of_class]


def _strip(pixels: Pixels) -> bytes:
    strip = Image.new("RGB", (SIDE * len(pixels), SIDE))
    for place, image in enumerate(pixels):
        small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        strip.paste(small, (SIDE * place, 0))
    written = io.BytesIO()
    strip.save(written, "WEBP", quality=_QUALITY)
    return written.getvalue()
