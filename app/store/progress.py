"""How far work is that takes long, told to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

OnCount = Callable[[int, int], None]
"""So much of so much is done."""
OnProgress = Callable[[str, int, int], None]
"""The same of a phase; of 0, where it is not known of how much."""

Item = TypeVar("Item")


def counting(items: Iterable[Item], total: int, on_count: OnCount) -> Iterator[Item]:
    """The items, each counted once it is worked through."""
    on_count(0, total)
    for done, item in enumerate(items, 1):
        yield item
        on_count(done, total)
