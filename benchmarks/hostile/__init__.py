"""Archives and images that nobody packs on purpose, made from seeds: `corpus`.

Each is a name and its bytes: what lies about itself, ends too early, expands without end, or was
damaged at random. Some are whole after all, as a careless reader would never notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

from benchmarks.hostile import damage, labels, pictures, tars, zips

Case = tuple[str, bytes]

_KINDS: dict[str, Callable[[Random], Iterator[Case]]] = {
    "zip": zips.cases,
    "tar": tars.cases,
    "picture": pictures.cases,
    "labels": labels.cases,
}
_BOMBS: dict[str, Callable[[Random], Iterator[Case]]] = {
    "zip-bomb": zips.bombs,
    "tar-bomb": tars.bombs,
    "picture-bomb": pictures.bombs,
}


def corpus(n: int, seed: int = 0) -> Iterator[Case]:
    """Some `n` of them: whatever was thought of, then others damaged at random."""
    told = 0
    for kind, cases in (_BOMBS | _KINDS).items():
        for name, data in cases(Random(seed)):
            told += 1
            yield f"{kind}/{name}", data
    yield from _damaged(n - told, seed)


def few(n: int, seed: int = 0) -> Iterator[Case]:
    """Some `n` of those that are made and read in a moment, of every kind, always the same ones."""
    light = [
        (f"{kind}/{name}", data)
        for kind, cases in _KINDS.items()
        for name, data in cases(Random(seed))
        if len(data) < 2**20
    ]
    half = n // 2
    yield from light[:: -(-len(light) // half)]
    yield from _damaged(n - half, seed)


def _damaged(n: int, seed: int) -> Iterator[Case]:
    for number, (name, data) in enumerate(islice(damage.cases(Random(seed)), max(0, n))):
        yield f"damaged/{name}-{number}", data
