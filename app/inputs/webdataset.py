"""WebDataset shards: tars in which files that share a key are one sample (key.jpg, key.cls)."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from app.embedding.archive import ArchiveLimits, read_members
from app.errors import InvalidRequest, Refused, Task2VecError
from app.inputs.columns import choose_column, likely_labels
from app.inputs.files import Files
from app.inputs.labels import NO_LABEL, labels_of
from app.inputs.pictures import Asked, Form, LeftOut, Picture, Pictures
from app.inputs.references import is_image
from app.inputs.splits import of_split

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")

_SIDECARS = ("cls", "json", "txt")
_LOOKED_AT = 20  # members, to see whether a tar is a shard
# The user's own file on the user's own machine: what is made of it meets the service's limits.
_LIMITS = ArchiveLimits(sys.maxsize, sys.maxsize, sys.maxsize, math.inf)

Sample = dict[str, bytes]
"""What a sample holds by the extension, for what may be an image or labels of it."""


def _find(files: Files) -> list[str]:
    tars = [name for name in files.names if name.endswith(SUFFIXES)]
    return tars if tars and _is_shard(files, tars[0]) else []


def _is_shard(files: Files, name: str) -> bool:
    with files.local(name) as path:
        return is_shard(path)


def is_shard(path: Path) -> bool:
    """Whether the first files are images with a .cls, .json or .txt of the same key."""
    try:
        with path.open("rb") as file:
            names = [member.path for member in islice(read_members(file, _LIMITS), _LOOKED_AT)]
    except Task2VecError:  # the service says what is wrong with it
        return False
    split = [_key(name) for name in names]
    beside = {key for key, extension in split if extension.rpartition(".")[2] in _SIDECARS}
    return any(key in beside and _shows(extension) for key, extension in split)


def _read(files: Files, chosen: Sequence[str], asked: Asked) -> Pictures:
    names, split = of_split(chosen, asked.split)
    with files.local(names[0]) as path:
        shown = (sample for _, sample in _samples(names[0], path) if any(map(_shows, sample)))
        first = next(shown, None)
    if first is None:
        raise InvalidRequest(
            "input-empty", f"{names[0]} holds no image.", "Name shards that hold images."
        )
    images = [extension for extension in first if _shows(extension)]
    image = choose_column(
        "images", "--image-column", asked.image_column, list(first), images, names[0]
    )
    label = _label_source(first, asked.label_column, names[0])

    def each(left_out: Counter[str]) -> Iterator[Picture]:
        for name in names:
            with files.local(name) as path:
                for key, sample in _samples(name, path):
                    try:
                        data, extension = _image(sample, image)
                        labels = label.of(sample)
                    except LeftOut as why:
                        left_out[str(why)] += 1
                        continue
                    # Keys may begin anew in every shard.
                    shard = f"{name.partition('.')[0]}/" if len(names) > 1 else ""
                    yield Picture(f"{shard}{key}.{extension}", labels, partial(bytes, data))

    shards = "a WebDataset shard" if len(names) == 1 else f"{len(names)} WebDataset shards"
    return Pictures(f"{shards}{split}, image {image}, label {label.called}", each)


class _LabelSource:
    """A file of the sample, or one key of its json."""

    def __init__(self, extension: str, key: str | None = None) -> None:
        self.called = f"{extension}: {key}" if key else extension
        self._extension = extension
        self._key = key

    def of(self, sample: Mapping[str, bytes]) -> tuple[str, ...]:
        if self._extension not in sample:
            raise LeftOut(NO_LABEL)
        data = sample[self._extension]
        if self._key is None:
            return labels_of(data.decode("utf-8", "replace").strip())
        return labels_of(_record(data).get(self._key))


def _label_source(sample: Sample, asked: str | None, at: str) -> _LabelSource:
    """`cls` where there is one, else the txt or what the json can mean."""
    try:
        keys = list(_record(sample.get("json", b"{}")))
    except LeftOut:
        keys = []
    texts = [name for name in sample if not _shows(name) and name != "json"]
    if asked is None and "cls" in sample:
        return _LabelSource("cls")
    fitting = [*texts, *likely_labels(keys)]
    chosen = choose_column("labels", "--label-column", asked, [*texts, *keys], fitting, at)
    return _LabelSource(chosen) if chosen in texts else _LabelSource("json", chosen)


def _record(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LeftOut("with a json that cannot be read") from error
    return found if isinstance(found, dict) else {}


def _image(sample: Sample, extension: str) -> tuple[bytes, str]:
    """Of that extension, or else the only other image: shards may mix jpg and png."""
    if extension in sample:
        return sample[extension], extension
    others = [name for name in sample if _shows(name)]
    if len(others) != 1:
        raise LeftOut("without an image")
    return sample[others[0]], others[0]


def _samples(name: str, path: Path) -> Iterator[tuple[str, Sample]]:
    """Consecutive files of the same key, read one sample at a time."""
    last, sample = "", Sample()
    try:
        with path.open("rb") as file:
            for member in read_members(file, _LIMITS):
                key, extension = _key(member.path)
                if sample and key != last:
                    yield last, sample
                    sample = Sample()
                last = key
                if _shows(extension) or extension.rpartition(".")[2] in _SIDECARS:
                    sample[extension] = member.data
    except Refused as error:
        raise Refused(error.code, f"{name}: {error.detail}", error.remedy) from error
    if sample:
        yield last, sample


def _shows(extension: str) -> bool:
    return is_image(f"image.{extension}")


def _key(name: str) -> tuple[str, str]:
    """Up to the first dot of the file's name, and what follows, as the library splits it."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


FORM = Form("WebDataset shards", _find, _read, frozenset(("split", "image_column", "label_column")))
