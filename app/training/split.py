"""Which images a run trains on and which it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.embedding.portion import hashed_order
from app.errors import InvalidRequest

Rows = npt.NDArray[np.int64]


def split_rows(
    labels: npt.NDArray[Any], digests: Sequence[str], share: float, seed: int
) -> tuple[Rows, Rows]:
    """Row numbers to train on and to judge by, class by class, chosen by the images' bytes.

    `labels`  (N,) class numbers, or (N, C) bool: these are split as a whole
    `share`   of each class that is judged by: at least one image of a class of two or more, and at
              least one trained on

    Raises InvalidRequest where nothing would be held out.
    """
    order = hashed_order([f"{seed}\n{digest}" for digest in digests])
    groups = (
        [order]
        if labels.ndim == 2
        else [order[labels[order] == number] for number in np.unique(labels)]
    )
    held: list[int] = []
    for group in groups:
        count = min(max(round(share * len(group)), 1), len(group) - 1) if share > 0 else 0
        held.extend(group[:count])
    if not held:
        raise InvalidRequest(
            "nothing-held-out",
            "No image is left to judge the run by.",
            "Give two images of a class at least, and a recipe whose `evaluation_share` is not 0.",
        )
    mask = np.zeros(len(digests), dtype=bool)
    mask[held] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)
