"""COCO annotations: a picture for every box, or the whole image with the set of its categories."""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
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
Json = dict[str, Any]


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

    def each(left_out: Counter[str]) -> Iterator[Picture]:
        for name in names:
            yield from of_one(_annotations(files, name), References(files, name), left_out)

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


class _Annotations:
    def __init__(self, document: Any, name: str) -> None:
        try:
            self.categories = {each["id"]: str(each["name"]) for each in document["categories"]}
            self.images = sorted(document["images"], key=lambda image: image["id"])
            self.of_image: defaultdict[Any, list[Json]] = defaultdict(list)
            for box in document["annotations"]:
                self.of_image[box["image_id"]].append(
                    {
                        "id": box["id"],
                        "box": tuple(map(float, box.get("bbox") or ())),
                        "crowd": bool(box.get("iscrowd")),
                        "category": self.categories[box["category_id"]],
                    }
                )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(
                "annotations-unfit",
                f"{name} is no file of COCO annotations: what it lacks is {error}.",
                "It holds lists `images`, `annotations` (with boxes) and `categories`.",
            ) from error


def _annotations(files: Files, name: str) -> _Annotations:
    return _Annotations(read_json(files, name), name)


def _whole_images(
    annotations: _Annotations, references: References, left_out: Counter[str]
) -> Iterator[Picture]:
    for image in annotations.images:
        read = references.find(str(image["file_name"]))
        if read is None:
            left_out["images that are not there"] += 1
            continue
        labels = {box["category"] for box in annotations.of_image[image["id"]]}
        yield Picture(str(image["file_name"]), tuple(sorted(labels)), read)


def _boxes(
    annotations: _Annotations, references: References, left_out: Counter[str]
) -> Iterator[Picture]:
    decoded = lru_cache(1)(_decode)  # boxes of an image follow each other
    for image in annotations.images:
        boxes = annotations.of_image[image["id"]]
        read = references.find(str(image["file_name"]))
        if read is None:
            left_out[_NOT_THERE] += len(boxes)
            continue
        stem = str(PurePosixPath(str(image["file_name"])).with_suffix(""))
        size = (image.get("width"), image.get("height"))
        for box in boxes:
            if box["crowd"]:
                left_out["boxes of crowds"] += 1
            elif len(box["box"]) != 4 or min(box["box"][2:]) < SMALLEST_BOX_PIXELS:
                left_out[_SMALL] += 1
            else:
                crop = partial(_crop, decoded, read, size, box["box"])
                yield Picture(f"{stem}-{box['id']}.png", (box["category"],), crop)


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
    box: tuple[float, float, float, float],
) -> bytes:
    image = decoded(read, size)
    left, top = max(0, floor(box[0])), max(0, floor(box[1]))
    right = min(image.width, ceil(box[0] + box[2]))
    bottom = min(image.height, ceil(box[1] + box[3]))
    if min(right - left, bottom - top) < SMALLEST_BOX_PIXELS:  # of what lies within the image
        raise LeftOut(_SMALL)
    return as_png(image.crop((left, top, right, bottom)))


FORM = Form("COCO annotations", _find, _read, frozenset(("split",)))
