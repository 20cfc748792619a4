"""A dataset object: anything with a length and, at every place, an image and its label.

Datasets of torchvision and timm are such, and subsets of them. Nothing of torch is imported here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from PIL import Image

from app.errors import InvalidRequest
from app.inputs.encoding import as_png
from app.inputs.labels import labels_of
from app.inputs.packed import Input
from app.inputs.pictures import LeftOut, Picture, Pictures

_WRAPPED = ("dataset", "reader")  # a subset's whole, what timm reads with


class MapDataset(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def from_dataset(
    dataset: MapDataset, classes: Sequence[str] | None = None, *, name: str = "dataset"
) -> Input:
    """What `Client.upload` and `embed_here` take, of a dataset's (image, label) pairs.

    An image is PIL's, or an array or tensor: uint8 (height, width, channels) or (channels, height,
    width), or a float one from 0 to 1. Leave out what shifts or crops at random, and Normalize. A
    label is a number among `classes`, a text, a list of either, or a row of zeros and ones; the
    dataset's own `classes` or `class_to_idx` are taken where none are given.

    Raises InvalidRequest, while it is read, for an item that is none of this.
    """
    names = classes if classes is not None else _own_classes(dataset)

    def each(left_out: Counter[str]) -> Iterator[Picture]:
        for index in range(len(dataset)):
            image, label = _pair(dataset[index], index)
            try:
                labels = labels_of(_plain(label, names, index), names)
            except LeftOut as why:
                left_out[str(why)] += 1
                continue
            yield Picture(f"{index:06d}.png", labels, partial(_png, image, index))

    said = f"{len(names)} classes" if names is not None else "no class names"
    taken_for = f"a dataset object of {len(dataset):,} images and {said}"
    return Input(name, Pictures(taken_for, each))


def _own_classes(dataset: Any) -> list[str] | None:
    while dataset is not None:
        if isinstance(index := getattr(dataset, "class_to_idx", None), Mapping) and index:
            named = {place: str(name) for name, place in index.items()}
            return [named.get(place, str(place)) for place in range(max(named) + 1)]
        if classes := getattr(dataset, "classes", None):
            return [str(name) for name in classes]
        inner = (getattr(dataset, wrapped, None) for wrapped in _WRAPPED)
        dataset = next((each for each in inner if each is not None), None)
    return None


def _pair(item: Any, index: int) -> tuple[Any, Any]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise _unfit(f"item {index} is {type(item).__name__}, not a pair of image and label")
    return item[0], item[1]


def _plain(label: Any, classes: Sequence[str] | None, index: int) -> Any:
    """Numbers and texts of Python; a row of zeros and ones as the places of its ones."""
    if isinstance(label, (str, int, list, tuple)) or label is None:
        return label
    values = np.asarray(label)
    if values.ndim == 0:
        return values.item()
    marked = np.flatnonzero(values)
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        raise _unfit(f"the label of item {index} is no number, text or row of zeros and ones")
    if classes is not None and len(values) != len(classes):
        raise _unfit(f"item {index} marks {len(values)} labels; there are {len(classes)} classes")
    return marked.tolist()


def _png(image: Any, index: int) -> bytes:
    return as_png(image if isinstance(image, Image.Image) else _from_array(image, index))


def _from_array(image: Any, index: int) -> Image.Image:
    pixels = np.asarray(image)
    if pixels.dtype.kind == "f":
        if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):
            raise _unfit(f"pixels of item {index} go from {pixels.min():g} to {pixels.max():g}")
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise _unfit(f"pixels of item {index} are {pixels.dtype}")
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and pixels.shape[2] not in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[2] in (3, 4)):
        raise _unfit(f"item {index} has the shape {pixels.shape}")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _unfit(what: str) -> InvalidRequest:
    return InvalidRequest(
        "dataset-unfit",
        f"{what[0].upper()}{what[1:]}.",
        "Give (image, label) pairs: a PIL image, or a tensor of uint8 or of floats from 0 to 1, "
        "without Normalize.",
    )
