"""Walks a zip by its central directory."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from app.embedding.archive.tally import (
    MIB,
    ArchiveLimits,
    DamagedError,
    Entry,
    Tally,
    link_refused,
    special_file_refused,
    too_many_entries,
)
from app.errors import Refused, UnsupportedMedia

# zipfile expands these in bounded pieces; what bzip2 and lzma give back at once has no bound.
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1
_UTF8_NAME = 0x800


def walk_zip(file: BinaryIO, tally: Tally) -> Iterator[Entry]:
    """The files of a zip, after its whole directory has been checked as declared."""
    guard = _DirectoryGuard(file, tally.limits)
    with zipfile.ZipFile(guard) as archive:
        guard.directory_read = True
        admitted = []
        expanded_bytes = 0
        for info in archive.infolist():
            path = _admit(info, tally)
            expanded_bytes += info.file_size
            tally.expand_to(expanded_bytes)
            if path is not None:
                admitted.append((path, info))
        for path, info in admitted:
            # zipfile stops at the declared size and compares the checksum there.
            yield Entry(path, partial(archive.read, info))


def _admit(info: zipfile.ZipInfo, tally: Tally) -> str | None:
    """The file's safe path; None for a folder."""
    name = _name(info)
    mode = info.external_attr >> 16
    is_folder = name.endswith(("/", "\\"))
    path = tally.admit(name, info.file_size, is_folder=is_folder)
    if info.flag_bits & _ENCRYPTED:
        raise Refused(
            "archive-encrypted", f"{name!r} is encrypted.", "Pack the archive without a password."
        )
    if stat.S_ISLNK(mode):
        raise link_refused(name)
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise special_file_refused(name)
    if info.compress_type not in _METHODS:
        raise UnsupportedMedia(
            "archive-compression-unsupported",
            f"{name!r} is compressed by zip method {info.compress_type}.",
            "Pack the zip with the usual method (deflate), or send a tar.gz or tar.zst.",
        )
    if info.header_offset < 0 or info.header_offset + info.compress_size > tally.archive_bytes:
        raise DamagedError(f"the data of {name!r} lie outside the file")
    return None if is_folder else path


def _name(info: zipfile.ZipInfo) -> str:
    """The entry's name; many programs write UTF-8 without raising the flag that says so."""
    if info.flag_bits & _UTF8_NAME:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


class _DirectoryGuard:
    """Refuses a central directory before zipfile makes an object of each of its entries."""

    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        self._file = file
        self._limits = limits
        self.directory_read = False

    def read(self, size: int = -1) -> bytes:
        if self.directory_read:
            return self._file.read(size)
        if size > MIB + self._limits.max_entries * 256:
            raise too_many_entries(self._limits)
        data = self._file.read(size)
        if data.count(b"PK\x01\x02") > self._limits.max_entries:
            raise too_many_entries(self._limits)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
