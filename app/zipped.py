"""A zip archive that is read while it is made; same files, same bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PIECE_BYTES = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold


@dataclass(frozen=True, slots=True)
class ZipEntry:
    name: str
    size_bytes: int
    open: Callable[[], BinaryIO]


class Zipped(io.RawIOBase):
    """It can be read again from its beginning (`seek(0)`), as a request that is repeated needs it:
    `entries` is asked for them anew."""

    def __init__(self, entries: Callable[[], Iterator[ZipEntry]]) -> None:
        super().__init__()
        self._entries = entries
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if (offset, whence) != (0, io.SEEK_SET):
            raise io.UnsupportedOperation("an archive in the making only goes to its beginning")
        self._pieces = _zip(self._entries())
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


def _zip(entries: Iterator[ZipEntry]) -> Iterator[bytes]:
    sink = _Sink()
    # Images are compressed already: stored, not deflated.
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, _EPOCH)
            info.file_size = entry.size_bytes  # lets zipfile choose zip64 in time
            with entry.open() as source, archive.open(info, "w") as target:
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
