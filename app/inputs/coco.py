"""COCO annotations: a picture for every box, or the whole image with the set of its categories."""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import ceil, floor
from pathlib import PurePosixPath
from typing import Any

from PIL import Image, ImageOps

from app.embedding.image import FORMATS
from app.errors import InvalidRequest
from app.inputs.encoding import as_png
from app.inputs.files import Files, read_json
from app.inputs.pictures import Asked, Form, LeftOut, Picture, Pictures
from app.inputs.references import References
from app.inputs.splits import ALL, of_split

SMALLEST_BOX_PIXELS = 16

_NAMES = re.compile("instances|annotations|coco", re.IGNORECASE)
_KEYS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
_LOOKED_AT_BYTES = 64 * 1024
_SMALL = f"boxes less than {SMALLEST_BOX_PIXELS} pixels wide or high"
_NOT_THERE = "boxes of images that are not there"

Read = Callable[[], bytes]


def _find(files: Files) -> list[str]:
    near = [name for name in files.names if name.endswith(".json") and name.count("/") <= 2]
    named = [name for name in near if _NAMES.search(PurePosixPath(name).name)]
    return [name for name in named if _begins_so(files, name)]


def _begins_so(files: Files, name: str) -> bool:
    """Other programs call theirs annotations, too."""
    with files.local(name) as path, path.open("rb") as file:
        return bool(_KEYS.search(file.read(_LOOKED_AT_BYTES)))


def _read(files: Files, chosen: Sequence[str], asked: Asked) -> Pictures:
    names, split = of_split(chosen, asked.split)
    if len(names) > 1 and asked.split != ALL:
        raise InvalidRequest(
            "several-annotations",
            f"{', '.join(names)} may be COCO annotations.",
            f"Name one of them, as {files.at}/{names[0]}.",
        )
    whole = asked.label_kind == "multi_label"
    of_one = _whole_images if whole else _boxes
    read = [(_Annotations(read_json(files, name), name), References(files, name)) for name in names]

    def each(left_out: Counter[str]) -> Iterator[Picture]:
        for one, references in read:
            yield from of_one(one, references, left_out)

    what = (
        "whole images with the set of their categories"
        if whole
        else f"boxes of {SMALLEST_BOX_PIXELS} pixels and more, a picture each "
        "(--label-kind multi_label takes whole images)"
    )
    return Pictures(
        f"COCO annotations ({', '.join(names)}){split}: {what}",
        each,
        fetched=files.fetched and whole,  # beside each other boxes would fetch one image many times
    )


@dataclass(frozen=True, slots=True)
class _Image:
    id: Any
    file_name: str
    size: tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class _Box:
    id: Any
    category: str
    edges: tuple[float, ...]
    is_crowd: bool


class _Annotations:
    """Images in the order of their ids, and the boxes of each; polygons are forgotten."""

    def __init__(self, document: Any, name: str) -> None:
        try:
            categories = {each["id"]: str(each["name"]) for each in document["categories"]}
            images = sorted(document["images"], key=lambda image: image["id"])
            self.images = [
                _Image(each["id"], str(each["file_name"]), (each.get("width"), each.get("height")))
                for each in images
            ]
            self.of_image: defaultdict[Any, list[_Box]] = defaultdict(list)
            for box in document["annotations"]:
                category = categories[box["category_id"]]
                edges = tuple(map(float, box.get("bbox") or ()))
                self.of_image[box["image_id"]].append(
                    _Box(box["id"], category, edges, bool(box.get("iscrowd")))
                )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(
                "annotations-unfit",
                f"{name} is no file of COCO annotations (it fails at {error}).",
                "It holds lists `images`, `annotations` (with boxes) and `categories`.",
            ) from error


def _whole_images(
    annotations: _Annotations, references: References, left_out: Counter[str]
) -> Iterator[Picture]:
    for image in annotations.images:
        read = references.find(image.file_name)
        if read is None:
            left_out["images that are not there"] += 1
            continue
        labels = {box.category for box in annotations.of_image[image.id]}
        yield Picture(image.file_name, tuple(sorted(labels)), read)


def _boxes(
    annotations: _Annotations, references: References, left_out: Counter[str]
) -> Iterator[Picture]:
    decoded = lru_cache(1)(_decode)  # boxes of an image follow each other
    for image in annotations.images:
        boxes = annotations.of_image[image.id]
        read = references.find(image.file_name)
        if read is None:
            left_out[_NOT_THERE] += len(boxes)
            continue
        stem = image.file_name.rpartition(".")[0]
        for box in boxes:
            if box.is_crowd:
                left_out["boxes of crowds"] += 1
            elif len(box.edges) != 4 or min(box.edges[2:]) < SMALLEST_BOX_PIXELS:
                left_out[_SMALL] += 1
            else:
                crop = partial(_crop, decoded, read, image.size, box.edges)
                yield Picture(f"{stem}-{box.id}.png", (box.category,), crop)


def _decode(read: Read, size: tuple[int | None, int | None]) -> Image.Image:
    data = read()
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
    except Exception as error:  # bytes nobody wrote on purpose bring out anything in a decoder
        raise LeftOut("boxes of images that cannot be decoded") from error
    if None in size or image.size == size:
        return image
    upright = ImageOps.exif_transpose(image)  # some programs annotate what viewers show
    if upright.size != size:
        raise LeftOut("boxes of images whose size is not that of the annotations")
    return upright


def _crop(
    decoded: Callable[[Read, tuple[int | None, int | None]], Image.Image],
    read: Read,
    size: tuple[int | None, int | None],
    edges: tuple[float, ...],
) -> bytes:
    image = decoded(read, size)
    x, y, width, height = edges
    left, top = max(0, floor(x)), max(0, floor(y))
    right, bottom = min(image.width, ceil(x + width)), min(image.height, ceil(y + height))
    if min(right - left, bottom - top) < SMALLEST_BOX_PIXELS:  # of what lies within the image
        raise LeftOut(_SMALL)
    return as_png(image.crop((left, top, right, bottom)))


FORM = Form("COCO annotations", _find, _read, frozenset(("split",)))
