"""Images without labels, to be looked at by a trained network: an archive of them, or one file.

An archive is read and refused as a labelled set's is (archive/, layout.py, decoding.py), but its
images may lie anywhere in it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import BinaryIO

import numpy as np

from app.embedding.archive import ArchiveLimits, Member, inspect_archive, read_members
from app.embedding.decoding import decode_members
from app.embedding.image import Pixels, image_format
from app.embedding.layout import Listing, list_files
from app.embedding.spool import spooled
from app.errors import Refused, TooLarge

_MAGIC_BYTES = 16
_FILES_IN_PROBLEM = 100


@dataclass(frozen=True, slots=True)
class UnlabelledImages:
    """Files with the same bytes share a row.

    `pixels`   (N, S, S, 3) uint8 RGB
    `rows`     the row of each image file, by name, in the order of names
    `refused`  of every other file, by name, why it is no image that can be read
    """

    pixels: Pixels
    rows: dict[str, int]
    refused: dict[str, str]


def inspect_images(file: BinaryIO, limits: ArchiveLimits) -> None:
    """What the structure alone shows; raises what `inspect_archive` raises, and TooLarge."""
    if not _is_image(file):
        inspect_archive(file, limits)
    elif (size_bytes := file.seek(0, io.SEEK_END)) > limits.max_entry_bytes:
        raise TooLarge(
            "image-too-large",
            f"The image has {size_bytes:,} bytes; {limits.max_entry_bytes:,} are allowed.",
            "Shrink it.",
        )


def read_images(
    file: BinaryIO,
    name: str,
    *,
    size: int,
    limits: ArchiveLimits,
    max_image_pixels: int,
    decoders: int | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> UnlabelledImages:
    """The images of an archive (seekable), or of the single image that `file` is, called `name`
    whatever that would mean in an archive.

    `on_progress` as in `read_labelled_images`. Raises Refused where no image can be read, and what
    `read_members` raises.
    """
    single = _is_image(file)

    def members() -> Iterator[Member]:
        return _single(file, name) if single else read_members(file, limits)

    listed = count(1)
    if single:
        (image,) = members()
        listing = Listing(images={name: hashlib.sha256(image.data).hexdigest()})
    else:
        listing = list_files(members(), limits, lambda: on_progress(0, next(listed)))
    refused = listing.skipped | dict.fromkeys(
        listing.labels_files, "a labels file: labels are not read here"
    )
    source = {digest: path for path, digest in sorted(listing.images.items(), reverse=True)}
    place_of = {digest: place for place, digest in enumerate(source)}
    pixels = spooled((len(source), size, size, 3), np.uint8)
    unreadable, _ = decode_members(
        ((member.path, member.data) for member in members()),
        {path: digest for digest, path in source.items()},
        {digest: [place] for digest, place in place_of.items()},
        pixels,
        max_waiting_bytes=limits.max_entry_bytes,
        max_image_pixels=max_image_pixels,
        decoders=decoders,
        heard=on_progress,
    )
    refused |= {
        path: unreadable[digest] for path, digest in listing.images.items() if digest in unreadable
    }
    rows = {
        path: place_of[digest]
        for path, digest in sorted(listing.images.items())
        if digest not in unreadable
    }
    if not rows:
        raise _unreadable(name, refused[name]) if single else _no_image(refused)
    return UnlabelledImages(pixels, rows, dict(sorted(refused.items())))


def _is_image(file: BinaryIO) -> bool:
    file.seek(0)
    start = file.read(_MAGIC_BYTES)
    file.seek(0)
    return image_format(start) is not None


def _single(file: BinaryIO, name: str) -> Iterator[Member]:
    file.seek(0)
    yield Member(name, file.read())


def _unreadable(name: str, why: str) -> Refused:
    return Refused(
        "no-readable-image",
        f"The image {name!r} cannot be read: {why}.",
        "Send another copy of it, or another image (JPEG, PNG, WebP, BMP, GIF or TIFF).",
    )


def _no_image(refused: dict[str, str]) -> Refused:
    files = [{"path": path, "reason": why} for path, why in sorted(refused.items())]
    return Refused(
        "no-readable-image",
        "The archive holds no image that can be read.",
        "Pack images (JPEG, PNG, WebP, BMP, GIF or TIFF); the report says why each file is none.",
        report={"files": files[:_FILES_IN_PROBLEM]},
    )
