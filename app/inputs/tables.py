"""A table with a row an image: a manifest, the metadata.csv of an image folder, a train.csv.

One column names the images, by path, by https:// or s3:// URI, or without their extension; another
holds the labels. Which is which is seen by what they hold.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from app.errors import InvalidRequest
from app.inputs.columns import choose_column, likely_labels
from app.inputs.fetch import is_uri
from app.inputs.files import Files
from app.inputs.labels import labels_of
from app.inputs.pictures import Asked, Form, LeftOut, Picture, Pictures
from app.inputs.references import References
from app.inputs.splits import ALL, of_split

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")

_LOOKED_AT = 50  # rows, to see which column names images
_SUBMISSION = re.compile(r"sample.?submission", re.IGNORECASE)
_TRUE = frozenset(("1", "1.0", "true", "yes"))


@dataclass(frozen=True, slots=True)
class _Table:
    """`labels` by what names the image, in the order of the rows; `again` rows named one twice."""

    name: str
    image_column: str
    label_column: str
    labels: dict[str, tuple[str, ...]]
    left_out: Counter[str]
    again: int


def _find(files: Files) -> list[str]:
    near = [name for name in files.names if name.endswith(SUFFIXES) and name.count("/") <= 1]
    metadata = [name for name in near if PurePosixPath(name).stem == "metadata"]
    return metadata or [name for name in near if "/" not in name and _names_images(files, name)]


def _names_images(files: Files, name: str) -> bool:
    if _SUBMISSION.search(name):
        return False
    try:
        frame = _frame(files, name)
    except InvalidRequest:  # some other file that happens to be called so
        return False
    return bool(_image_columns(frame, References(files, name)))


def _read(files: Files, chosen: Sequence[str], asked: Asked) -> Pictures:
    names, split = of_split(chosen, asked.split)
    if len(names) > 1 and asked.split != ALL:
        raise InvalidRequest(
            "several-tables",
            f"{', '.join(names)} name images.",
            f"Name one of them, as {files.at}/{names[0]}.",
        )
    tables = [_table(files, name, asked) for name in names]
    first = tables[0]
    again = sum(table.again for table in tables)

    def each(left_out: Counter[str]) -> Iterator[Picture]:
        for table in tables:
            left_out.update(table.left_out)
            references = References(files, table.name)
            for reference, labels in table.labels.items():
                read = references.find(reference)
                if read is None:
                    left_out[f"named in {table.name}, but not there"] += 1
                else:
                    yield Picture(reference, labels, read)

    return Pictures(
        f"a table of images ({', '.join(names)}){split}, image column {first.image_column}, "
        f"label column {first.label_column}"
        + (f"; {again:,} rows name an image again, and their labels are joined" if again else ""),
        each,
        fetched=files.fetched or any(is_uri(name) for table in tables for name in table.labels),
    )


def _table(files: Files, name: str, asked: Asked) -> _Table:
    frame = _frame(files, name)
    images = _image_columns(frame, References(files, name))
    if "file_name" in images:  # as the library `datasets` demands
        images = ["file_name"]
    if len(images) > 1:  # labels 1 to 9 name images too where those are called 1 to 999
        most = max(frame[column].n_unique() for column in images)
        images = [column for column in images if frame[column].n_unique() == most]
    image = choose_column(
        "names of images that are there",
        "--image-column",
        asked.image_column,
        frame.columns,
        images,
        name,
    )
    others = [column for column in frame.columns if column != image]
    marks = (asked.label_column or "").split(",")
    if asked.label_column not in others and len(marks) > 1 and set(marks) <= set(others):
        values: list[Any] = [
            [mark for mark, value in zip(marks, row, strict=True) if str(value).lower() in _TRUE]
            for row in frame.select(marks).iter_rows()
        ]
    else:
        marks = [
            choose_column(
                "labels", "--label-column", asked.label_column, others, likely_labels(others), name
            )
        ]
        values = frame[marks[0]].to_list()
    labels: dict[str, tuple[str, ...]] = {}
    left_out: Counter[str] = Counter()
    again = 0
    for reference, value in zip(frame[image].cast(pl.String).to_list(), values, strict=True):
        try:
            found = _labels(value, none_applies=asked.label_kind == "multi_label")
        except LeftOut as why:
            left_out[str(why)] += 1
            continue
        if not reference:
            left_out["without an image"] += 1
            continue
        if reference in labels:
            again += 1
            found = (*labels[reference], *found)
        labels[reference] = found
    return _Table(name, image, ", ".join(marks), labels, left_out, again)


def _labels(value: Any, *, none_applies: bool) -> tuple[str, ...]:
    """In a text `|` separates several, as in labels.csv."""
    if none_applies and value in (None, ""):
        return ()
    return labels_of(value.split("|") if isinstance(value, str) and "|" in value else value)


def _image_columns(frame: pl.DataFrame, references: References) -> list[str]:
    """Columns most of whose first values name an image."""
    found = []
    for column in frame.columns:
        if frame[column].dtype.is_nested():
            continue
        values = frame[column].head(_LOOKED_AT).cast(pl.String).drop_nulls().to_list()
        there = sum(references.names_an_image(value) for value in values)
        if values and 2 * there > len(values):
            found.append(column)
    return found


def _frame(files: Files, name: str) -> pl.DataFrame:
    """Values of a CSV stay the texts they are: 007 is no number."""
    try:
        data = files.read(name).decode("utf-8-sig").encode()
        if name.endswith((".csv", ".tsv")):
            header = data.partition(b"\n")[0]
            separator = max(",;\t", key=lambda mark: header.count(mark.encode()))
            return pl.read_csv(io.BytesIO(data), separator=separator, infer_schema=False)
        return pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            "table-unreadable",
            f"{name} cannot be read as a table: {str(error).splitlines()[0].rstrip('.')}.",
            "Write it as UTF-8 text with a header line, a row an image.",
        ) from error


FORM = Form("a table of images", _find, _read, frozenset(("split", "image_column", "label_column")))
