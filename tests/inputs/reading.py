"""An input as the service would see it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from app.embedding.archive import ArchiveLimits
from app.embedding.dataset import LabelledImages, read_labelled_images
from app.folder import open_archive
from app.inputs.packed import Input
from app.inputs.pictures import Asked
from app.inputs.recognise import read_input

SAMPLES = Path(__file__).parent / "samples"


def taken(*paths: Path | str, **asked: str) -> Input:
    found = read_input([str(path) for path in paths], Asked(**asked))  # type: ignore[arg-type]
    assert isinstance(found, Input)
    return found


def archive_of(found: Input | Path) -> bytes:
    with open_archive(found) as stream:
        return stream.read()


def files_of(found: Input) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive_of(found))) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def labels_of(found: Input) -> dict[str, str]:
    """By the name of the picture, as its labels.csv says; every row has its picture."""
    files = files_of(found)
    header, *rows = files.pop("labels.csv").decode().splitlines()
    assert header == "file,label"
    labels = dict(row.rsplit(",", 1) for row in rows)
    assert labels.keys() == files.keys()
    return labels


def intake(found: Input | Path) -> tuple[LabelledImages, Mapping[str, int]]:
    """What the service reads, and the classes it counts; it skips nothing."""
    images, report = read_labelled_images(
        [io.BytesIO(archive_of(found))],
        size=16,
        label_kind="auto",
        limits=ArchiveLimits(),
        max_image_pixels=10**6,
    )
    assert report.summary()["skipped"] == 0
    return images, report.classes


def written(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder
