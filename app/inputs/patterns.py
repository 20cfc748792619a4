"""Paths as people write them: as they are, or with braces and wildcards for several."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.errors import InvalidRequest

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class NothingThere(InvalidRequest):
    """No file and no folder is called so."""


def expanded(patterns: Sequence[str]) -> list[Path]:
    """Every file or folder that is meant, once. Raises NothingThere where one is not."""
    return list(dict.fromkeys(path for pattern in patterns for path in _paths(pattern)))


def _paths(pattern: str) -> Iterator[Path]:
    if Path(pattern).exists():  # braces and all
        yield Path(pattern)
        return
    found = [Path(path) for each in _braces(pattern) for path in _wildcards(each)]
    missing = next((path for path in found if not path.exists()), None)
    if not found or missing:
        raise NothingThere(
            "input-missing", f"There is nothing at {missing or pattern}.", "Check the path."
        )
    yield from found


def _braces(pattern: str) -> list[str]:
    """`a-{000..002}.tar` and `{a,b}.tar`, as shells expand them; here for those that do not."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    if ends := _RANGE.fullmatch(match[1]):
        first, last = int(ends[1]), int(ends[2])
        parts = [f"{number:0{len(ends[1])}d}" for number in range(first, last + 1)]
    else:
        parts = match[1].split(",")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [rest for part in parts for rest in _braces(f"{before}{part}{after}")]


def _wildcards(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return [pattern]
    return sorted(glob.glob(pattern))  # noqa: PTH207 - it may be absolute
