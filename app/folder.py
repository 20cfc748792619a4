"""A folder read as a zip archive that never exists as a whole; same files, same bytes."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import InvalidRequest

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PIECE_BYTES = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold


class ZippedFolder(io.RawIOBase):
    """Hidden files stay out, links to files are followed, links to folders are not.

    It can be read again from its beginning (`seek(0)`), as a request that is repeated needs it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._files = _visible_files(folder)
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if (offset, whence) != (0, io.SEEK_SET):
            raise io.UnsupportedOperation("a folder's archive only goes back to its beginning")
        self._pieces = _zip(self._folder, self._files)
        self._rest = memoryview(b"")
        return 0

    def readinto(self, buffer: Buffer) -> int:
        target = memoryview(buffer)
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def open_archive(path: Path) -> ZippedFolder | io.BufferedReader:
    """The archive at `path`, or the folder there as one."""
    return ZippedFolder(path) if path.is_dir() else path.open("rb")


def bytes_in(path: Path) -> int:
    """Of the archive, or of the files that the folder's would hold."""
    files = _visible_files(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def archive_name(path: Path) -> str:
    """What to call it when it is sent: a task without a name is called after its archive."""
    resolved = path.resolve()
    return f"{resolved.name}.zip" if path.is_dir() else resolved.name


def _visible_files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    files = sorted((file for file in found if file.is_file()), key=lambda file: file.as_posix())
    if not files:
        raise InvalidRequest(
            "folder-empty",
            f"There are no files in {folder}.",
            "Give a folder that holds one folder of images per label.",
        )
    return files


def _zip(folder: Path, files: list[Path]) -> Iterator[bytes]:
    sink = _Sink()
    # Images are compressed already: stored, not deflated.
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _EPOCH)
            entry.file_size = file.stat().st_size  # lets zipfile choose zip64 in time
            with file.open("rb") as source, archive.open(entry, "w") as target:
                while piece := source.read(_PIECE_BYTES):
                    target.write(piece)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """Keeps what zipfile wrote until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        self._written += data
        return memoryview(data).nbytes

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken
