"""Archives -> LabelledImages and an IntakeReport.

Two passes over each archive. The first hashes every file and settles what each image is called; the
second decodes the images that are used, each once, straight into its place. The result's order is
that of (labels, digest of the file's bytes): neither names nor the archive's order matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from app.embedding.archive import ArchiveLimits
from app.embedding.decoding import decode_members
from app.embedding.image import PREPROCESSING, Pixels
from app.embedding.layout import LabelledFile, LabelledFiles, find_files, named_members
from app.embedding.portion import balanced_part
from app.embedding.report import IntakeReport, report_intake
from app.embedding.spool import spooled
from app.errors import Refused

__all__ = [
    "PREPROCESSING",
    "IntakeReport",
    "LabelKind",
    "LabelledImages",
    "RefusedSet",
    "read_labelled_images",
]

LabelKind = Literal["single_label", "multi_label"]
AskedLabelKind = Literal["auto"] | LabelKind

MAX_CLASSES = 5_000


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images and labels, validated, before any model saw them; in the order of (labels, digest).

    `pixels`   (N, S, S, 3) uint8 RGB
    `labels`   single_label: (N,) int64 class indices; multi_label: (N, C) bool
    `classes`  C >= 2 labels in code point order, each on one image at least
    `digests`  N times the SHA-256 of the image file's bytes, in hex
    """

    pixels: Pixels
    labels: npt.NDArray[np.int64] | npt.NDArray[np.bool_]
    classes: tuple[str, ...]
    digests: tuple[str, ...]
    label_kind: LabelKind


class RefusedSet(Refused):
    """Refused once all of its files were looked at: `report` tells of each."""

    def __init__(self, code: str, detail: str, remedy: str, report: IntakeReport) -> None:
        super().__init__(code, detail, remedy, report=report.for_problem())
        self.report = report


@dataclass(frozen=True, slots=True)
class _Row:
    """One image of the set to be. Every file with these bytes shows the same pixels."""

    labels: tuple[str, ...]
    digest: str


def read_labelled_images(
    archives: Sequence[BinaryIO],
    *,
    size: int,
    label_kind: AskedLabelKind,
    limits: ArchiveLimits,
    max_image_pixels: int,
    most: int | None = None,
    least_of_a_class: int = 1,
    decoders: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[LabelledImages, IntakeReport]:
    """Reads one or more archives (seekable; the versions of a task) as one labelled image set.

    `auto` is multi_label where some row of a labels file has several labels. In a multi_label set
    an image with an empty label is one to which no label applies, and the labels of files with the
    same bytes are joined; in a single_label set files with the same bytes and label count once.
    With `most`, about so many images are read at most, the same share of every class but
    `least_of_a_class` where there are so many, and the report is of these. `decoders` images are
    decoded at a time (decoding.py); their number changes no result. `on_progress(done, total)`
    counts images; while files are still being listed it is called with done = 0 and a growing
    total. What it raises ends the reading.

    Raises RefusedSet where fewer than 2 classes or no readable image are left; Refused where labels
    and their kind do not fit; and what `read_members` and `parse_labels` raise.
    """
    heard = on_progress or (lambda _done, _total: None)
    listed = count(1)
    found = find_files(archives, limits, lambda: heard(0, next(listed)))
    kind = _settle_kind(label_kind, found)
    row_of = _arrange(found, kind)
    rows = sorted(set(row_of.values()), key=lambda row: (row.labels, row.digest))
    if most is not None and rows:
        rows = _part(rows, kind, most, least_of_a_class)
        chosen = set(rows)
        found.images = [file for file in found.images if row_of[file] in chosen]
    pixels = spooled((len(rows), size, size, 3), np.uint8)
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row.digest].append(place)
    # One file of each digest is enough: in reversed order the first by name is the one to stay.
    source = {file.digest: file.name for file in reversed(found.images)}
    unreadable, sizes = decode_members(
        named_members(archives, limits),
        {name: digest for digest, name in source.items()},
        places,
        pixels,
        max_waiting_bytes=limits.max_entry_bytes,
        max_image_pixels=max_image_pixels,
        decoders=decoders,
        heard=heard,
    )

    row_labels = {file: row_of[file].labels for file in found.images}
    report = report_intake(found, row_labels, unreadable, sizes)
    kept = [place for place, row in enumerate(rows) if row.digest not in unreadable]
    for place, before in enumerate(kept):
        if place != before:
            pixels[place] = pixels[before]
    rows = [rows[place] for place in kept]
    classes = tuple(sorted({label for row in rows for label in row.labels}))
    _require_classes(len(rows), classes, report)
    labelled = LabelledImages(
        pixels[: len(rows)],
        _label_array(rows, classes, kind),
        classes,
        tuple(row.digest for row in rows),
        kind,
    )
    return labelled, report


def _settle_kind(asked: AskedLabelKind, found: LabelledFiles) -> LabelKind:
    """The label kind; with single_label, files without a label are skipped from here on."""
    if asked == "multi_label" or (asked == "auto" and found.several_at):
        return "multi_label"
    if found.several_at:
        raise Refused(
            "several-labels",
            f"An image has several labels ({found.several_at}), but single_label is asked for.",
            "Ask for multi_label, or leave one label on each image.",
        )
    unlabelled = [file.name for file in found.images if not file.labels]
    found.skipped |= dict.fromkeys(unlabelled, "its row has no label")
    found.images = [file for file in found.images if file.labels]
    return "single_label"


def _arrange(found: LabelledFiles, kind: LabelKind) -> dict[LabelledFile, _Row]:
    """The row that each file goes into, before anybody knows which can be decoded."""
    if kind == "single_label":
        row_of = {file: _Row(file.labels, file.digest) for file in found.images}
    else:
        joined: defaultdict[str, set[str]] = defaultdict(set)
        for file in found.images:
            joined[file.digest].update(file.labels)
        row_of = {
            file: _Row(tuple(sorted(joined[file.digest])), file.digest) for file in found.images
        }
    n_classes = len({label for row in row_of.values() for label in row.labels})
    if n_classes > MAX_CLASSES:
        raise Refused(
            "too-many-classes",
            f"The set has {n_classes:,} classes; {MAX_CLASSES:,} are read at most.",
            "Check that folders (or the column `label`) name classes, not single images.",
        )
    return row_of


def _part(rows: Sequence[_Row], kind: LabelKind, most: int, least: int) -> list[_Row]:
    labels = _label_array(
        rows, tuple(sorted({label for row in rows for label in row.labels})), kind
    )
    chosen = balanced_part(labels, [row.digest for row in rows], most, least)
    return [rows[place] for place in sorted(chosen)]


def _require_classes(n_images: int, classes: tuple[str, ...], report: IntakeReport) -> None:
    if not n_images:
        raise RefusedSet(
            "no-readable-image",
            "The set holds no image that can be read and has a label.",
            "Pack label/image.ext folders (JPEG, PNG, WebP, BMP, GIF or TIFF), or images with a "
            "labels.csv or labels.jsonl; the report says why each file was skipped.",
            report,
        )
    if len(classes) < 2:
        only = f"only the class {classes[0]!r}" if classes else "no class"
        raise RefusedSet(
            "too-few-classes",
            f"The set's {n_images:,} readable images have {only}.",
            "Add images of at least one other class; the report says why files were skipped.",
            report,
        )


def _label_array(
    rows: Sequence[_Row], classes: tuple[str, ...], kind: LabelKind
) -> npt.NDArray[np.int64] | npt.NDArray[np.bool_]:
    index = {label: i for i, label in enumerate(classes)}
    if kind == "single_label":
        return np.array([index[row.labels[0]] for row in rows], dtype=np.int64)
    labels = np.zeros((len(rows), len(classes)), dtype=np.bool_)
    for i, row in enumerate(rows):
        labels[i, [index[label] for label in row.labels]] = True
    return labels
