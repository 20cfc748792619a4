"""Labelled images as programs have them, as what can be sent."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from app.errors import InvalidRequest
from app.folder import Archive
from app.inputs.objects import MapDataset, from_dataset
from app.inputs.packed import Input
from app.inputs.pictures import Asked

Images = str | Path | Sequence[str | Path] | bytes | MapDataset | Input


class ArchiveBytes:
    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self._content = content

    def open(self) -> io.BytesIO:
        return io.BytesIO(self._content)


def require_images_or_source(
    images: Images | None, source: str | None, asked: Asked, classes: Sequence[str] | None
) -> None:
    """InvalidRequest where both are given or neither, or what changes nothing of a source."""
    if (images is None) == (source is None):
        raise InvalidRequest(
            "images-or-source",
            "A task is made of images or of a source, and of one of them alone.",
            "Give what is to be sent, or as `source` the URI that the service is to fetch.",
        )
    told = classes is not None or asked != Asked(label_kind=asked.label_kind)
    if source is not None and told:
        raise InvalidRequest(
            "option-unfit",
            "A source is an archive as it is: form, split, columns and classes change nothing.",
            "Leave them out.",
        )


def archive_of(
    images: Images, asked: Asked, *, name: str | None, classes: Sequence[str] | None
) -> Path | Archive:
    """`asked` is of what lies at paths, `classes` of a dataset object."""
    if isinstance(images, bytes):
        return ArchiveBytes(name or "archive", images)
    if isinstance(images, (str, Path)):
        return _read([str(images)], asked)
    if (
        isinstance(images, (list, tuple))
        and images
        and all(isinstance(each, (str, Path)) for each in images)
    ):
        return _read([str(each) for each in images], asked)
    if isinstance(images, Input):
        return images
    if not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        raise InvalidRequest(
            "images-unknown",
            f"{type(images).__name__} is nothing that images are read from.",
            "Give paths, the bytes of an archive, or a dataset of (image, label) pairs.",
        )
    return from_dataset(cast("MapDataset", images), classes, name=name or "dataset")


def _read(paths: list[str], asked: Asked) -> Path | Archive:
    from app.inputs.recognise import read_input  # it takes most of a second

    return read_input(paths, asked)
