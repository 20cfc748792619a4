"""What an archive has shown so far, held against its limits; the safe names of its entries."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

from app.errors import Refused, TooLarge

MIB = 2**20
MAX_PATH_CHARACTERS = 1024
RATIO_FREE_BYTES = MIB  # plain drawings compress a thousandfold; below this they harm nobody

_DRIVE = re.compile(r"^[A-Za-z]:")
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")  # what no database and no JSON text can hold


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How far an archive may go; `max_expansion_ratio` is expanded bytes over archive bytes."""

    max_entries: int = 200_000
    max_expanded_bytes: int = 8 * 2**30
    max_entry_bytes: int = 64 * MIB
    max_expansion_ratio: float = 100.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive; `read` gives its bytes, before the walk goes on."""

    path: str
    read: Callable[[], bytes]


class DamagedError(Exception):
    """The archive is not what its headers say, or ends too early."""


@dataclass(slots=True)
class Tally:
    limits: ArchiveLimits
    archive_bytes: int
    entries: int = 0
    files: int = 0
    expanded_bytes: int = 0
    paths: set[str] = field(default_factory=set)

    def admit(self, name: str, size_bytes: int, *, is_folder: bool) -> str:
        """The entry's safe path; raises where its name, size or number cannot be let in."""
        self.entries += 1
        if self.entries > self.limits.max_entries:
            raise too_many_entries(self.limits)
        path = _safe_path(name)
        if is_folder:
            return path
        if not path:
            raise _unreadable_name(name)
        if path in self.paths:
            raise Refused(
                "archive-duplicate-path",
                f"Two files of the archive are called {name!r}.",
                "Give every file its own path.",
            )
        if size_bytes > self.limits.max_entry_bytes:
            raise TooLarge(
                "archive-entry-too-large",
                f"{name!r} expands to {size_bytes:,} bytes; "
                f"{self.limits.max_entry_bytes:,} are allowed for one file.",
                "Leave it out, or shrink it.",
            )
        self.paths.add(path)
        self.files += 1
        return path

    def expand_to(self, expanded_bytes: int) -> None:
        """Checks what the archive has expanded to so far, in all."""
        self.expanded_bytes = expanded_bytes
        if expanded_bytes > self.limits.max_expanded_bytes:
            raise TooLarge(
                "archive-expands-too-far",
                f"The archive expands to more than {self.limits.max_expanded_bytes:,} bytes.",
                "Shrink the images, or send them in several uploads.",
            )
        ratio = self.limits.max_expansion_ratio
        if expanded_bytes > max(RATIO_FREE_BYTES, ratio * self.archive_bytes):
            raise TooLarge(
                "archive-expands-too-far",
                f"The archive of {self.archive_bytes:,} bytes expands to more than {ratio:g} times "
                "its size.",
                "Store images in a compressed format (JPEG, PNG, WebP) before packing them.",
            )


def too_many_entries(limits: ArchiveLimits) -> TooLarge:
    return TooLarge(
        "archive-too-many-entries",
        f"The archive holds more than {limits.max_entries:,} entries.",
        "Send fewer images, or send them in several uploads.",
    )


def link_refused(name: str) -> Refused:
    return Refused(
        "archive-link",
        f"{name!r} is a link.",
        "Pack the files themselves: tar with --dereference --hard-dereference, zip without -y.",
    )


def special_file_refused(name: str) -> Refused:
    return Refused(
        "archive-special-file",
        f"{name!r} is a device, a pipe, a sparse file or something else that is no plain file.",
        "Pack plain files and folders only.",
    )


def _safe_path(name: str) -> str:
    """Relative, with `/`, and composed (NFC): macOS packs names decomposed, labels files do not."""
    if _UNWRITABLE.search(name) or len(name) > MAX_PATH_CHARACTERS:
        raise _unreadable_name(name)
    path = unicodedata.normalize("NFC", name).replace(
        "\\", "/"
    )  # some Windows programs separate folders so
    parts = path.split("/")
    if path.startswith("/") or _DRIVE.match(path) or ".." in parts:
        raise Refused(
            "archive-path-unsafe",
            f"The path {name!r} leads out of the archive.",
            "Pack the files under relative paths, without `..`.",
        )
    return "/".join(part for part in parts if part not in {"", "."})


def _unreadable_name(name: str) -> Refused:
    return Refused(
        "archive-name-unreadable",
        f"The name {name[:80]!a} is not UTF-8 text of 1 to {MAX_PATH_CHARACTERS} characters.",
        "Rename the file, or pack the archive with UTF-8 names.",
    )
