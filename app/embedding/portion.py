"""Some of a set's images, chosen by their bytes alone: nothing else moves the choice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def hashed_order(names: Sequence[str]) -> Indices:
    """Numbers of the names in an order that depends on each name only."""
    keys = [hashlib.blake2b(name.encode()).digest() for name in names]
    return np.array(sorted(range(len(keys)), key=lambda i: (keys[i], i)), dtype=np.int64)


def balanced_part(
    labels: npt.NDArray[Any], digests: Sequence[str], most: int, least: int = 1
) -> Indices:
    """At most about `most` images, the same share of every class, in an order of their bytes.

    `labels`  (N,) class numbers, or (N, C) bool: these are taken as a whole
    `least`   images of a class, where it has them, even if that makes more in all
    """
    order = hashed_order(digests)
    share = min(1.0, most / len(order))
    if labels.ndim == 2 or share == 1.0:
        return order[: int(np.ceil(share * len(order)))]
    groups = (order[labels[order] == c] for c in np.unique(labels))
    return np.concatenate(
        [group[: max(int(np.ceil(share * len(group))), least)] for group in groups]
    )
