"""labels.csv and labels.jsonl: which file carries which labels.

labels.csv has a header line with the columns `file` and `label`; labels.jsonl has one object with
these two fields a line. Other columns are not looked at. Several labels of one image are separated
by `|`; an empty label says that none applies. Labels are taken as they stand, spaces included,
in composed Unicode (NFC).
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from app.embedding.archive.tally import MAX_PATH_CHARACTERS
from app.errors import Refused, TooLarge

LABELS_FILES = ("labels.csv", "labels.jsonl")
MAX_LABEL_CHARACTERS = 200
LABEL_RULE = f"plain text of at most {MAX_LABEL_CHARACTERS} characters"

_UNWRITABLE = re.compile("[\0-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class LabelRow:
    labels: tuple[str, ...]
    line: int


def parse_labels(name: str, data: bytes, max_rows: int) -> dict[str, LabelRow]:
    """What a labels file says of each file; paths are relative to the labels file's folder.

    Raises Refused naming the line that is not well formed, TooLarge beyond `max_rows`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _malformed(name, line, "it is not UTF-8 text") from error
    text = unicodedata.normalize("NFC", text)
    rows: dict[str, LabelRow] = {}
    read = _csv_rows if name.endswith(".csv") else _jsonl_rows
    for line, file, label in read(name, text):
        if len(rows) >= max_rows:
            raise TooLarge(
                "labels-file-too-long",
                f"{name} has more than {max_rows:,} rows.",
                "Send fewer images, or send them in several uploads.",
            )
        path = "/".join(p for p in file.replace("\\", "/").split("/") if p not in {"", "."})
        if not path or len(path) > MAX_PATH_CHARACTERS or _UNWRITABLE.search(path):
            raise _malformed(name, line, "it names no file that an archive can hold")
        if path in rows:
            raise _malformed(name, line, f"{path!r} already has a row (line {rows[path].line})")
        labels = tuple(sorted({part for part in label.split("|") if part}))
        for part in labels:
            if not is_label(part):
                raise _malformed(name, line, f"a label is {LABEL_RULE}")
        rows[path] = LabelRow(labels, line)
    return rows


def is_label(text: str) -> bool:
    """Whether LABEL_RULE lets a folder's name or a labels file's entry be a label."""
    return not _UNWRITABLE.search(text) and len(text) <= MAX_LABEL_CHARACTERS


def _csv_rows(name: str, text: str) -> Iterator[tuple[int, str, str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        if header.count("file") != 1 or header.count("label") != 1:
            raise _malformed(
                name, 1, f"the columns `file` and `label` are not both in {str(header)[:200]}"
            )
        file, label = header.index("file"), header.index("label")
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                fields = f"{len(row)} fields stand under {len(header)} columns"
                raise _malformed(name, reader.line_num, fields)
            yield reader.line_num, row[file], row[label]
    except csv.Error as error:
        raise _malformed(name, reader.line_num, str(error)) from error


def _jsonl_rows(name: str, text: str) -> Iterator[tuple[int, str, str]]:
    for line, record in enumerate(io.StringIO(text), start=1):
        if not record.strip():
            continue
        try:
            values = json.loads(record)
        except (ValueError, RecursionError) as error:
            raise _malformed(name, line, f"it is not JSON ({error})") from error
        match values:
            case {"file": str(file), "label": str(label)}:
                yield line, file, label
            case _:
                raise _malformed(name, line, "it is no object with the texts `file` and `label`")


def _malformed(name: str, line: int, what: str) -> Refused:
    return Refused(
        "labels-file-malformed",
        f"{name}, line {line}: {what}.",
        "Mend that line: UTF-8, columns `file,label`, a row an image, several labels joined by |.",
        line=line,
    )
