"""The intake report: for every file whether it is used, and what about the set deserves a look."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from app.embedding.layout import LabelledFile, LabelledFiles

SMALL_CLASS = 5  # images; a class with fewer earns a warning
DOMINANCE = 4.0  # a class with more than so many times the mean of the others earns one too
MAX_FILES_PER_WARNING = 20
MAX_NAMES_PER_MESSAGE = 10
MAX_REASONS = 20
MAX_FILES_IN_PROBLEM = 100


class FileOutcome(TypedDict):
    """One file. `label` joins several with `|`, a labels file has none; `reason`: why skipped."""

    path: str
    status: Literal["used", "skipped"]
    label: str | None
    reason: str | None


class IntakeWarning(TypedDict):
    """`files` holds the first of the files concerned."""

    code: str
    message: str
    files: list[str]


@dataclass(frozen=True, slots=True)
class IntakeReport:
    """`files` in path order; `classes` counts the images used of every label found; `mean_pixels`
    of an image used, as its file has them, None where there is none."""

    files: list[FileOutcome]
    classes: dict[str, int]
    warnings: list[IntakeWarning]
    mean_pixels: float | None

    def summary(self) -> dict[str, Any]:
        images = sum(file["label"] is not None for file in self.files if file["status"] == "used")
        reasons = Counter(file["reason"] for file in self.files if file["status"] == "skipped")
        return {
            "used": images,
            "skipped": reasons.total(),
            "classes": self.classes,
            "mean_pixels": self.mean_pixels,
            "warnings": self.warnings,
            "skipped_reasons": dict(reasons.most_common(MAX_REASONS)),
        }

    def for_problem(self) -> dict[str, Any]:
        """The summary and the first skipped files, for a problem document to carry."""
        skipped = [file for file in self.files if file["status"] == "skipped"]
        return {**self.summary(), "files": skipped[:MAX_FILES_IN_PROBLEM]}


def report_intake(
    found: LabelledFiles,
    row_labels: Mapping[LabelledFile, tuple[str, ...]],
    unreadable: Mapping[str, str],
    pixels: Mapping[str, int],
) -> IntakeReport:
    """`row_labels` are those of the row that a file went into; `unreadable` reasons and `pixels` of
    the images that were decoded, by digest."""
    outcomes = [_skipped(name, None, why) for name, why in found.skipped.items()]
    outcomes += [_used(name, None) for name in found.labels_files]
    counts = Counter({label: 0 for file in found.images for label in file.labels})
    first: dict[tuple[tuple[str, ...], str], str] = {}
    copies: list[str] = []
    used: list[int] = []
    for file in found.images:
        labels = row_labels[file]
        label = "|".join(labels)
        if file.digest in unreadable:
            outcomes.append(_skipped(file.name, label, unreadable[file.digest]))
        elif (labels, file.digest) in first:
            same = first[labels, file.digest]
            outcomes.append(_skipped(file.name, label, f"same bytes as {same}"))
            copies.append(file.name)
        else:
            first[labels, file.digest] = file.name
            outcomes.append(_used(file.name, label))
            counts.update(labels)
            used.append(pixels[file.digest])
    warnings = [
        *_class_warnings(counts),
        *_file_warnings("duplicate-images", "{} are copies of others and left out", copies),
        *_file_warnings(
            "same-image-two-labels",
            "{} have the same bytes as others under another label",
            _with_two_labels(found.images),
        ),
        *_file_warnings(
            "unreadable-images",
            "{} cannot be read",
            [file.name for file in found.images if file.digest in unreadable],
        ),
        *_file_warnings(
            "rows-without-file", "{} have a row but are not in the archive", found.rows_without_file
        ),
        *_file_warnings("images-without-row", "{} have no row", found.images_without_row),
    ]
    outcomes.sort(key=lambda outcome: outcome["path"])
    mean = sum(used) / len(used) if used else None
    return IntakeReport(outcomes, dict(sorted(counts.items())), warnings, mean)


def _used(name: str, label: str | None) -> FileOutcome:
    return {"path": name, "status": "used", "label": label, "reason": None}


def _skipped(name: str, label: str | None, why: str) -> FileOutcome:
    return {"path": name, "status": "skipped", "label": label, "reason": why}


def _with_two_labels(files: Sequence[LabelledFile]) -> list[str]:
    labels: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for file in files:
        labels[file.digest].add(file.labels)
    return [file.name for file in files if len(labels[file.digest]) > 1]


def _class_warnings(counts: Mapping[str, int]) -> Iterable[IntakeWarning]:
    small = sorted(label for label, count in counts.items() if count < SMALL_CLASS)
    if small:
        yield {
            "code": "class-small",
            "message": f"Classes with fewer than {SMALL_CLASS} images: {_names(small)}.",
            "files": [],
        }
    total = sum(counts.values())
    others = len(counts) - 1
    dominant = [
        label
        for label, count in sorted(counts.items())
        if others and count * others > DOMINANCE * (total - count)
    ]
    if dominant:
        yield {
            "code": "class-dominant",
            "message": f"Classes with more than {DOMINANCE:g} times the mean of the others: "
            f"{_names(dominant)}.",
            "files": [],
        }
    bare: defaultdict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        bare[unicodedata.normalize("NFKC", "".join(label.split())).casefold()].append(label)
    alike = [label for labels in bare.values() if len(labels) > 1 for label in labels]
    if alike:
        yield {
            "code": "labels-alike",
            "message": "Labels that differ only by case or spaces are kept as different classes: "
            f"{_names(alike)}.",
            "files": [],
        }


def _file_warnings(code: str, message: str, names: Sequence[str]) -> Iterable[IntakeWarning]:
    if names:
        files = "1 file" if len(names) == 1 else f"{len(names):,} files"
        yield {
            "code": code,
            "message": f"{message.format(files)}.",
            "files": sorted(names)[:MAX_FILES_PER_WARNING],
        }


def _names(labels: Sequence[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:MAX_NAMES_PER_MESSAGE])
    more = len(labels) - MAX_NAMES_PER_MESSAGE
    return f"{shown} and {more:,} more" if more > 0 else shown
