"""A file that is whole or as it was before, whatever breaks its writing off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import NO_SPACE, Unavailable, is_disk_full
from app.files import whole


def write_whole(path: Path, write: Callable[[Any], object], what: str) -> None:
    """`write` is given a binary file; `what` names it for people.

    Raises Unavailable `no-space` where the disk is full.
    """
    try:
        with whole(path) as scratch, scratch.open("wb") as file:
            write(file)
    except (OSError, RuntimeError) as error:  # torch's writer wraps what went wrong
        if _comes_of_a_full_disk(error):
            raise Unavailable(
                NO_SPACE,
                f"The disk of {path.parent} is full: the {what} was not written.",
                "Make room: where the run goes on, it does from its last checkpoint.",
            ) from error
        raise


def _comes_of_a_full_disk(error: BaseException | None) -> bool:
    while error is not None:
        if is_disk_full(error):
            return True
        error = error.__cause__ or error.__context__
    return False
