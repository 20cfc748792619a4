"""A folder read as a zip archive that never exists as a whole."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from app.errors import InvalidRequest
from app.zipped import ZipEntry, Zipped


class Archive(Protocol):
    """What can be sent though it is no file: a folder's or a dataset's pictures."""

    @property
    def name(self) -> str: ...

    def open(self) -> Zipped | io.BytesIO: ...


class ZippedFolder(Zipped):
    """Hidden files stay out, links to files are followed, links to folders are not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = visible_files(folder)
        if not self._files:
            raise InvalidRequest(
                "folder-empty",
                f"There are no files in {folder}.",
                "Give a folder with images in it: to embed, in one folder per label.",
            )
        super().__init__(self._each)

    def _each(self) -> Iterator[ZipEntry]:
        for file in self._files:
            name = file.relative_to(self._folder).as_posix()
            yield ZipEntry(name, file.stat().st_size, partial(_opened, file))


def open_archive(archive: Path | Archive) -> Zipped | io.BufferedReader | io.BytesIO:
    """The archive at a path, the folder there as one, or one that is made while it is read."""
    if not isinstance(archive, Path):
        return archive.open()
    return ZippedFolder(archive) if archive.is_dir() else archive.open("rb")


def bytes_in(path: Path) -> int:
    """Of the archive, or of the files that the folder's would hold."""
    files = visible_files(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def archive_name(archive: Path | Archive) -> str:
    """What to call it when it is sent: a task without a name is called after its archive."""
    if not isinstance(archive, Path):
        return archive.name
    resolved = archive.resolve()
    return f"{resolved.name}.zip" if archive.is_dir() else resolved.name


def archive_bytes(archive: Path | Archive) -> int | None:
    """How many bytes will be sent, where that is known before."""
    if not isinstance(archive, Path) or archive.is_dir():
        return None
    return archive.stat().st_size


def _opened(file: Path) -> BinaryIO:
    return file.open("rb")


def visible_files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted((file for file in found if file.is_file()), key=lambda file: file.as_posix())
