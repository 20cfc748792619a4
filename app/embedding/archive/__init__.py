"""An uploaded archive, read member by member and never trusted.

zip, tar, tar.gz and tar.zst, told apart by their first bytes. Nothing is written to disk, no member
is opened under its own name, and every byte is counted while it is read: what an archive declares
is checked first, what it delivers is checked again.
"""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal

import zstandard

from app.embedding.archive.tally import ArchiveLimits, DamagedError, Entry, Tally
from app.embedding.archive.tars import walk_tar
from app.embedding.archive.zips import walk_zip
from app.errors import Refused, UnsupportedMedia

__all__ = [
    "ArchiveFormat",
    "ArchiveLimits",
    "ArchiveSummary",
    "Member",
    "inspect_archive",
    "is_archive",
    "read_members",
]

ArchiveFormat = Literal["zip", "tar", "tar.gz", "tar.zst"]

_OTHER_ARCHIVES = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
}
_NO_ARCHIVES = {
    b"\xff\xd8\xff": "a single JPEG image",
    b"\x89PNG": "a single PNG image",
    b"%PDF": "a PDF document",
}
_BROKEN = (
    DamagedError,
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,  # other OSErrors are the disk's, not the archive's
    zlib.error,
    zstandard.ZstdError,
    EOFError,
    # What zipfile and tarfile let slip on headers that nobody wrote on purpose.
    struct.error,
    ValueError,
    NotImplementedError,
    OverflowError,
    LookupError,
    RecursionError,
)


@dataclass(frozen=True, slots=True)
class ArchiveSummary:
    """What an archive's structure shows: `entries` counts its files, not its folders."""

    format: ArchiveFormat
    entries: int
    expanded_bytes: int


@dataclass(frozen=True, slots=True)
class Member:
    """One file: `path` is relative, with forward slashes and without `.` and `..`."""

    path: str
    data: bytes


def inspect_archive(file: BinaryIO, limits: ArchiveLimits) -> ArchiveSummary:
    """What the structure alone shows, in bounded memory; no image is decoded.

    Raises UnsupportedMedia (no archive read here), TooLarge (a limit) or Refused (damaged, unsafe,
    encrypted or empty), each naming the entry at fault and what to change.
    """
    format_ = _format(file)
    tally = Tally(limits, _size_bytes(file))
    for _ in _walk(file, format_, tally):
        pass
    return ArchiveSummary(format_, tally.files, tally.expanded_bytes)


def read_members(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    """The files of an archive in the order they stand in it, one in memory at a time.

    Raises what `inspect_archive` raises, and Refused where a member's bytes are damaged; members
    before the damage have been given out by then.
    """
    format_ = _format(file)
    tally = Tally(limits, _size_bytes(file))
    for entry in _walk(file, format_, tally):
        with _damage_told(format_):
            data = entry.read()
        yield Member(entry.path, data)


def is_archive(data: bytes) -> bool:
    """Whether these bytes begin like an archive: one inside another is never opened."""
    return _magic(data) is not None or data.startswith(tuple(_OTHER_ARCHIVES))


def _walk(file: BinaryIO, format_: ArchiveFormat, tally: Tally) -> Iterator[Entry]:
    with _damage_told(format_):
        if format_ == "zip":
            yield from walk_zip(file, tally)
        else:
            yield from walk_tar(file, format_, tally)
    if not tally.files:
        raise Refused(
            "archive-empty",
            "The archive holds no files.",
            "Pack label/image.ext folders, or images with a labels.csv or labels.jsonl.",
        )


@contextmanager
def _damage_told(format_: ArchiveFormat) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        what = str(error) or type(error).__name__
        raise Refused(
            "archive-damaged",
            f"The {format_} archive is cut off or damaged: {what.rstrip('.')}.",
            "Test the archive where it was made, pack it again if need be, and upload it whole.",
        ) from error


def _format(file: BinaryIO) -> ArchiveFormat:
    file.seek(0)
    start = file.read(tarfile.BLOCKSIZE)
    if not start:
        raise Refused(
            "archive-empty", "The upload holds no bytes.", "Upload an archive of labelled images."
        )
    found = _magic(start)
    if found is None and len(start) == tarfile.BLOCKSIZE and not any(start):
        found = "tar"  # one without members
    if found is None:
        known = _OTHER_ARCHIVES | _NO_ARCHIVES
        looks = next((known[magic] for magic in known if start.startswith(magic)), None)
        raise UnsupportedMedia(
            "archive-unsupported",
            f"The upload is {looks or 'no archive of a known kind'}.",
            "Pack the images as zip, tar, tar.gz or tar.zst.",
        )
    return found


def _magic(start: bytes) -> ArchiveFormat | None:
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if start.startswith(b"\x1f\x8b"):
        return "tar.gz"
    skippable = start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5
    if start.startswith(b"\x28\xb5\x2f\xfd") or skippable:  # parallel compressors begin so
        return "tar.zst"
    try:
        tarfile.TarInfo.frombuf(start[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return "tar"


def _size_bytes(file: BinaryIO) -> int:
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size_bytes
