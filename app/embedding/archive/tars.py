"""Walks a tar, plain or compressed, from front to end."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO, Literal, Protocol

import zstandard

from app.embedding.archive.tally import (
    MIB,
    DamagedError,
    Entry,
    Tally,
    link_refused,
    special_file_refused,
)
from app.errors import Refused

MAX_HEADER_BYTES = MIB  # of one member: tarfile reads long names and pax records into memory whole
MAX_ZSTD_WINDOW_BYTES = 128 * MIB  # what `zstd` itself agrees to without being asked


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def walk_tar(
    file: BinaryIO, format_: Literal["tar", "tar.gz", "tar.zst"], tally: Tally
) -> Iterator[Entry]:
    """The files of a tar; the bytes of those that nobody reads are counted and dropped."""
    with _expanded(file, format_) as source:
        stream = _TarStream(source, tally)
        tar = tarfile.TarFile(fileobj=stream, mode="r", encoding="utf-8")  # type: ignore[arg-type]
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep one for every member
            stream.header_bytes = 0
            path = tally.admit(info.name, info.size, is_folder=info.isdir())
            if info.issym() or info.islnk():
                raise link_refused(info.name)
            if info.isdir():
                continue
            if not info.isfile() or info.issparse():
                raise special_file_refused(info.name)
            yield Entry(path, partial(stream.take, info.size))
        # To tarfile a missing end and an unreadable header are the end too.
        if len(stream.last_read) < tarfile.BLOCKSIZE or any(stream.last_read):
            raise DamagedError("its end mark is missing")
        stream.drain()


@contextmanager
def _expanded(file: BinaryIO, format_: Literal["tar", "tar.gz", "tar.zst"]) -> Iterator[_Readable]:
    if format_ == "tar.gz":
        with gzip.GzipFile(fileobj=file, mode="rb") as unzipped:
            yield unzipped
    elif format_ == "tar.zst":
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
        with decompressor.stream_reader(file, read_across_frames=True, closefd=False) as reader:
            yield reader
    else:
        yield file


class _TarStream:
    """Forward-only bytes of a tar, counted: tarfile `read`s headers, we `take` what files hold."""

    def __init__(self, source: _Readable, tally: Tally) -> None:
        self._source = source
        self._tally = tally
        self._position = 0
        self.header_bytes = 0
        self.last_read = b""

    def read(self, size: int) -> bytes:
        self.header_bytes += size
        if self.header_bytes > MAX_HEADER_BYTES:
            raise Refused(
                "archive-header-too-large",
                f"A tar header takes more than {MAX_HEADER_BYTES:,} bytes.",
                "Pack the files under shorter names and without extended attributes.",
            )
        self.last_read = self._read(size)
        return self.last_read

    def take(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) < size:
            raise DamagedError("it ends within a file")
        return data

    def seek(self, position: int) -> int:
        if position < self._position:
            raise DamagedError("a header points backwards")
        while self._position < position:
            if not self._read(min(position - self._position, MIB)):
                raise DamagedError("it ends within a file")
        return position

    def tell(self) -> int:
        return self._position

    def drain(self) -> None:
        """Reads what follows the end mark, so that a cut or a wrong checksum shows."""
        while self._read(MIB):
            pass

    def _read(self, size: int) -> bytes:
        pieces = []
        while size > 0 and (piece := self._source.read(min(size, MIB))):
            pieces.append(piece)
            size -= len(piece)
            self._position += len(piece)
            self._tally.expand_to(self._position)
        return b"".join(pieces)
