"""Image datasets as Hugging Face keeps them: Parquet of the hub, Arrow of `save_to_disk`.

An image is a struct of its file's `bytes` and `path`, or the bytes alone; a label is a number, and
the dataset's features, stored beside it, tell what the numbers are called.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from app.errors import InvalidRequest
from app.inputs.columns import choose_column, likely_labels
from app.inputs.files import Files, read_json
from app.inputs.labels import labels_of
from app.inputs.pictures import Asked, Form, LeftOut, Picture, Pictures
from app.inputs.splits import is_split, of_split

_ROWS_AT_A_TIME = 64  # some megabytes of images
_NO_BYTES = "without bytes (the image lies elsewhere)"
_INFO = "dataset_info.json"
_COLUMNS = frozenset(("split", "image_column", "label_column"))

Batches = Callable[[Path, list[str]], Iterator[pl.DataFrame]]


@dataclass(frozen=True, slots=True)
class _Columns:
    image: str
    label: str
    classes: tuple[str, ...] | None


def _find_parquet(files: Files) -> list[str]:
    """Whether one that would have to be fetched holds images is seen when it is read."""
    found = [name for name in files.names if name.endswith(".parquet")]
    return found if files.fetched or any(map(partial(_may_hold_images, files), found)) else []


def _may_hold_images(files: Files, name: str) -> bool:
    with files.local(name) as path:
        try:
            return any(map(_is_image, pl.read_parquet_schema(path).values()))
        except pl.exceptions.PolarsError:
            return True  # damaged, which is told when it is read


def _find_arrow(files: Files) -> list[str]:
    """Shards that their index names: a cache that `datasets` left beside them is none of them."""
    found = []
    for folder in [PurePosixPath(name).parent for name in files.names if name.endswith(_INFO)]:
        if files.has(index := str(folder / "state.json")):
            shards = read_json(files, index).get("_data_files", ())
            found += [str(folder / shard["filename"]) for shard in shards]
    return found


def _read_parquet(files: Files, chosen: Sequence[str], asked: Asked) -> Pictures:
    _require_one_configuration(files, chosen)
    names, split = of_split(chosen, asked.split)
    with files.local(names[0]) as path, _damage_told(names[0]):
        schema = pl.read_parquet_schema(path)
        stored = json.loads(pl.read_parquet_metadata(path).get("huggingface", "{}"))
    features = stored.get("info", {}).get("features", {})
    columns = _columns(schema, features, asked, names[0])
    return Pictures(
        f"{_many(names, 'Parquet file')} of images{split}{_said(columns)}",
        partial(_rows, files, names, columns, _parquet_batches),
    )


def _read_arrow(files: Files, chosen: Sequence[str], asked: Asked) -> Pictures:
    names, split = of_split(chosen, asked.split)
    with files.local(names[0]) as path, _damage_told(names[0]):
        schema = pl.read_ipc_stream(path, n_rows=0).schema
    info = str(PurePosixPath(names[0]).parent / _INFO)
    features = read_json(files, info).get("features", {}) if files.has(info) else {}
    columns = _columns(schema, features, asked, names[0])
    return Pictures(
        f"a dataset saved by Hugging Face `datasets`{split}{_said(columns)}",
        partial(_rows, files, names, columns, _arrow_batches),
    )


def _require_one_configuration(files: Files, chosen: Sequence[str]) -> None:
    """A hub's dataset may hold several, each in a folder of its own."""
    folders = {
        "/".join(part for part in PurePosixPath(name).parts[:-1] if not is_split(part))
        for name in chosen
    }
    if len(folders) > 1:
        raise InvalidRequest(
            "several-configurations",
            f"Parquet files lie in {', '.join(sorted(folder or '.' for folder in folders))}.",
            f"Name one of these folders: {files.at}/{max(folders)}.",
        )


def _columns(
    schema: Mapping[str, pl.DataType], features: Mapping[str, Any], asked: Asked, at: str
) -> _Columns:
    columns = list(schema)
    images = [name for name, type_ in schema.items() if _is_image(type_)]
    image = choose_column("images", "--image-column", asked.image_column, columns, images, at)
    if not _is_image(schema[image]):
        raise InvalidRequest(
            "column-unfit",
            f"{at}: the column {image!r} holds {schema[image]}, not images.",
            f"Of {', '.join(columns)} name the one that does.",
        )
    named = [name for name in columns if _classes(features.get(name))]
    others = [name for name in columns if name not in images and _can_be_label(schema[name])]
    label = choose_column(
        "labels",
        "--label-column",
        asked.label_column,
        [name for name in columns if name != image],
        named or likely_labels(others),
        at,
    )
    return _Columns(image, label, _classes(features.get(label)))


def _is_image(type_: pl.DataType) -> bool:
    if isinstance(type_, pl.Struct):
        return any(field.name == "bytes" and field.dtype == pl.Binary for field in type_.fields)
    return type_ == pl.Binary


def _can_be_label(type_: pl.DataType) -> bool:
    inner = type_.inner if isinstance(type_, pl.List) else type_
    return inner == pl.String or inner.is_integer() or inner == pl.Boolean


def _classes(feature: Any) -> tuple[str, ...] | None:
    """The names of a ClassLabel, or of a list of them in any of the ways it was written."""
    if isinstance(feature, list) and len(feature) == 1:
        return _classes(feature[0])
    if not isinstance(feature, dict):
        return None
    if "names" in feature:
        return tuple(str(name) for name in feature["names"])
    return _classes(feature.get("feature"))


def _rows(
    files: Files,
    names: Sequence[str],
    columns: _Columns,
    batches: Batches,
    left_out: Counter[str],
) -> Iterator[Picture]:
    for name in names:
        number = 0
        with files.local(name) as path:
            for batch in _undamaged(name, batches(path, [columns.image, columns.label])):
                for image, label in batch.select(columns.image, columns.label).iter_rows():
                    number += 1
                    try:
                        data, suffix = _bytes_of(image)
                        labels = labels_of(label, columns.classes)
                    except LeftOut as why:
                        left_out[str(why)] += 1
                        continue
                    stem = PurePosixPath(name).name.partition(".")[0]
                    yield Picture(f"{stem}/{number:06d}{suffix}", labels, partial(bytes, data))


def _bytes_of(image: Any) -> tuple[bytes, str]:
    """And how the file was called at its end."""
    data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, "")
    if data is None:
        raise LeftOut(_NO_BYTES if path else "without an image")
    return data, PurePosixPath(path or "").suffix


def _parquet_batches(path: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
    scan = pl.scan_parquet(path, glob=False).select(columns)
    return iter(scan.collect_batches(chunk_size=_ROWS_AT_A_TIME, maintain_order=True, lazy=True))


def _arrow_batches(path: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
    yield pl.read_ipc_stream(path, columns=columns)


def _undamaged(name: str, batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    while True:
        with _damage_told(name):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextmanager
def _damage_told(name: str) -> Iterator[None]:
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise InvalidRequest(
            "input-damaged",
            f"{name} cannot be read: {str(error).splitlines()[0]}.",
            "Fetch or write it again; if it is not whole, nothing of it is sent.",
        ) from error


def _many(names: Sequence[str], what: str) -> str:
    return f"a {what}" if len(names) == 1 else f"{len(names)} {what}s"


def _said(columns: _Columns) -> str:
    return f", image column {columns.image}, label column {columns.label}"


PARQUET = Form("Parquet files of images", _find_parquet, _read_parquet, _COLUMNS)
ARROW = Form("a dataset saved by `datasets`", _find_arrow, _read_arrow, _COLUMNS)
