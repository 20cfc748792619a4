"""Pictures as the archive that the service takes: images, and at its end their labels.csv."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import PurePosixPath

from app.embedding.image import image_format
from app.embedding.labels import LABEL_RULE, is_label
from app.errors import InvalidRequest
from app.inputs.pictures import LeftOut, Picture, Pictures
from app.zipped import ZipEntry, Zipped

_READERS = 8  # of pictures that come over a network
_MAX_NAME_CHARACTERS = 200
_UNSAFE = re.compile("[\0-\x1f\x7f\ud800-\udfff:]")


class Input:
    """An archive that is made while it is sent. `left_out` counts, by reason, what the archive last
    read to its end does not hold."""

    def __init__(self, name: str, pictures: Pictures) -> None:
        self.name = f"{name}.zip"
        self.taken_for = pictures.taken_for
        self.left_out: Counter[str] = Counter()
        self._pictures = pictures

    def open(self) -> Zipped:
        return Zipped(self._entries)

    def _entries(self) -> Iterator[ZipEntry]:
        left_out: Counter[str] = Counter()
        taken: dict[str, tuple[str, ...]] = {}
        found = self._pictures.each(left_out)
        for picture, read in _ahead(found) if self._pictures.fetched else _in_turn(found):
            try:
                data = read()
            except LeftOut as why:
                left_out[str(why)] += 1
                continue
            if image_format(data) is None:
                left_out["files of no image format that is read here"] += 1
                continue
            name = _free_name(picture.name, taken)
            taken[name] = _checked(picture.labels)
            yield ZipEntry(name, len(data), partial(io.BytesIO, data))
        self.left_out = left_out
        if not taken:
            reasons = "; ".join(f"{n:,} {reason}" for reason, n in left_out.most_common(3))
            raise InvalidRequest(
                "input-empty",
                f"Of {self.taken_for} no picture is left ({reasons or 'there is none'}).",
                "If it was taken for the wrong thing, say what it is with --form.",
            )
        table = _labels_csv(taken)
        yield ZipEntry("labels.csv", len(table), partial(io.BytesIO, table))


def _in_turn(pictures: Iterator[Picture]) -> Iterator[tuple[Picture, Callable[[], bytes]]]:
    return ((picture, picture.read) for picture in pictures)


def _ahead(pictures: Iterator[Picture]) -> Iterator[tuple[Picture, Callable[[], bytes]]]:
    """In their order, while the next ones are being read."""
    readers = ThreadPoolExecutor(_READERS)
    waiting: deque[tuple[Picture, Future[bytes]]] = deque()
    try:
        for picture in pictures:
            waiting.append((picture, readers.submit(picture.read)))
            if len(waiting) == 2 * _READERS:
                first, reading = waiting.popleft()
                yield first, reading.result
        for first, reading in waiting:
            yield first, reading.result
    finally:
        readers.shutdown(cancel_futures=True)


def _free_name(name: str, taken: Container[str]) -> str:
    """One that an archive can hold and nobody has: near the picture's own, for reports to tell."""
    text = _UNSAFE.sub("_", unicodedata.normalize("NFC", name).replace("\\", "/"))
    parts = [part.lstrip(".") for part in text.split("/")]
    whole = "/".join(part for part in parts if part)[-_MAX_NAME_CHARACTERS:].lstrip("/.")
    path = PurePosixPath(whole or "image")
    candidates = (
        str(path if number == 1 else path.with_stem(f"{path.stem}-{number}")) for number in count(1)
    )
    return next(name for name in candidates if name not in taken and name != "labels.csv")


def _checked(labels: tuple[str, ...]) -> tuple[str, ...]:
    for label in labels:
        if "|" in label or not is_label(label):
            raise InvalidRequest(
                "label-unfit",
                f"{label[:80]!r} cannot be a label: it is {LABEL_RULE}, without |.",
                "Name another column with --label-column, or rename the class.",
            )
    return labels


def _labels_csv(taken: dict[str, tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("file", "label"))
    rows.writerows((name, "|".join(labels)) for name, labels in taken.items())
    return text.getvalue().encode()
