"""What lies where in the archives: which of their files are images, and which labels each carries.

An archive holds either `label/image.ext`, or images with a labels file beside them; in both cases
one folder may enclose everything. Where there are several archives, a file's name is its archive's
number, a colon and its path; else its path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from app.embedding.archive import ArchiveLimits, Member, is_archive, read_members
from app.embedding.image import FORMATS, image_format
from app.embedding.labels import LABEL_RULE, LABELS_FILES, is_label, parse_labels
from app.errors import Refused, TooLarge

_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """An image file with the SHA-256 of its bytes; not decoded yet, so it may prove unreadable."""

    name: str
    labels: tuple[str, ...]
    digest: str


@dataclass(slots=True)
class LabelledFiles:
    """The files of all archives, by name: images with labels, and the rest with a reason."""

    images: list[LabelledFile] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    labels_files: list[str] = field(default_factory=list)
    rows_without_file: list[str] = field(default_factory=list)
    images_without_row: list[str] = field(default_factory=list)
    several_at: str | None = None  # the first row with several labels


@dataclass(slots=True)
class Listing:
    """The files of one archive by path: images with their digests, the rest with a reason."""

    images: dict[str, str] = field(default_factory=dict)
    labels_files: dict[str, bytes] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def find_files(
    archives: Sequence[BinaryIO], limits: ArchiveLimits, on_file: Callable[[], None]
) -> LabelledFiles:
    """Reads and hashes every file once; `images` come in the order of their names.

    Raises what `read_members` and `parse_labels` raise, Refused where an archive has two labels
    files, TooLarge where they are too large to be held.
    """
    found = LabelledFiles()
    for prefix, archive in zip(_prefixes(len(archives)), archives, strict=True):
        listing = list_files(read_members(archive, limits), limits, on_file)
        root = _enclosing_folder(listing)
        labels_files = [root + name for name in LABELS_FILES if root + name in listing.labels_files]
        if len(labels_files) > 1:
            raise Refused(
                "two-labels-files",
                f"The archive holds both {labels_files[0]} and {labels_files[1]}.",
                "Leave one of them out.",
            )
        if labels_files:
            _label_by_rows(found, prefix, listing, root, labels_files[0], limits.max_entries)
        else:
            _label_by_folders(found, prefix, listing, root)
        found.skipped |= {prefix + path: why for path, why in listing.skipped.items()}
        for path in listing.labels_files.keys() - set(labels_files):
            found.skipped[prefix + path] = "a labels file stands at the top, beside the images"
    found.images.sort(key=lambda file: file.name)
    return found


def named_members(
    archives: Sequence[BinaryIO], limits: ArchiveLimits
) -> Iterator[tuple[str, bytes]]:
    for prefix, archive in zip(_prefixes(len(archives)), archives, strict=True):
        for member in read_members(archive, limits):
            yield prefix + member.path, member.data


def _prefixes(n_archives: int) -> list[str]:
    return [""] if n_archives == 1 else [f"{number}:" for number in range(1, n_archives + 1)]


def list_files(
    members: Iterable[Member], limits: ArchiveLimits, on_file: Callable[[], None]
) -> Listing:
    """What the files of one archive are; `on_file` hears of each."""
    listing = Listing()
    labels_bytes = 0
    for member in members:
        path, data = member.path, member.data
        on_file()
        if _is_system_file(path):
            listing.skipped[path] = "hidden or system file"
        elif path.count("/") <= 1 and path.rpartition("/")[2] in LABELS_FILES:
            listing.labels_files[path] = data
            labels_bytes += len(data)
            if labels_bytes > limits.max_entry_bytes:
                raise TooLarge(
                    "labels-files-too-large",
                    f"The labels files are larger than {limits.max_entry_bytes:,} bytes.",
                    "Keep one labels file, with the columns `file` and `label` only.",
                )
        elif image_format(data):
            listing.images[path] = hashlib.sha256(data).hexdigest()
        elif not data:
            listing.skipped[path] = "empty file"
        elif is_archive(data):
            listing.skipped[path] = "an archive inside the archive is not opened"
        else:
            listing.skipped[path] = f"not an image of a format read here ({', '.join(FORMATS)})"
    return listing


def _is_system_file(path: str) -> bool:
    parts = path.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return hidden or parts[-1].lower() in _SYSTEM_FILES


def _enclosing_folder(listing: Listing) -> str:
    """The one top folder, with its slash, that all labels and images lie in; or nothing."""
    if any("/" not in path for path in listing.labels_files):
        return ""
    inner = [path for path in (*listing.images, *listing.labels_files) if "/" in path]
    tops = {path.partition("/")[0] for path in inner}
    has_folders = any(path.count("/") > 1 for path in listing.images)
    return f"{tops.pop()}/" if len(tops) == 1 and (has_folders or listing.labels_files) else ""


def _label_by_folders(found: LabelledFiles, prefix: str, listing: Listing, root: str) -> None:
    for path, digest in listing.images.items():
        label, *rest = path.removeprefix(root).split("/")
        if not path.startswith(root):
            found.skipped[prefix + path] = f"outside the folder {root} that holds the others"
        elif not rest:
            found.skipped[prefix + path] = (
                f"in no label's folder, and there is no {' or '.join(LABELS_FILES)}"
            )
        elif len(rest) > 1:
            found.skipped[prefix + path] = "lies deeper than label/image"
        elif not is_label(label):
            found.skipped[prefix + path] = f"its folder's name is no label: {LABEL_RULE}"
        else:
            found.images.append(LabelledFile(prefix + path, (label,), digest))


def _label_by_rows(
    found: LabelledFiles,
    prefix: str,
    listing: Listing,
    root: str,
    labels_file: str,
    max_rows: int,
) -> None:
    found.labels_files.append(prefix + labels_file)
    parsed = parse_labels(labels_file, listing.labels_files[labels_file], max_rows)
    rows = {root + file: row for file, row in parsed.items()}
    for path, digest in listing.images.items():
        if path in rows:
            found.images.append(LabelledFile(prefix + path, rows[path].labels, digest))
        else:
            found.skipped[prefix + path] = f"no row in {labels_file}"
            found.images_without_row.append(prefix + path)
    for path, row in rows.items():
        if len(row.labels) > 1 and found.several_at is None:
            found.several_at = f"{prefix}{labels_file}, line {row.line}"
        if path not in listing.images and path not in listing.skipped:
            found.skipped[prefix + path] = f"named in {labels_file}, but not in the archive"
            found.rows_without_file.append(prefix + path)
