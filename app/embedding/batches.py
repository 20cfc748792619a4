"""Batches that shrink when memory runs out, and how large one may be in a given memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from app.embedding.probe import BATCH_SIZE, Probe
from app.errors import Unavailable

Rows = npt.NDArray[np.int64]
Result = TypeVar("Result")

LARGEST = 256
OVERHEAD = 3.0
"""Bytes a pass takes at its peak, in bytes of the activations of its images: they themselves, their
gradients, and a layer's padded input and filter squares."""


def batch_size_for(probe: Probe, memory_mib: int | None) -> int:
    """As many images as the memory holds: a multiple of BATCH_SIZE, at least one, at most LARGEST.

    A processor gains nothing by more than one: its caches are smaller than any of them.

    `memory_mib`  None: half of what the GPU has free
    """
    if probe.device.type == "cpu":
        return BATCH_SIZE
    if memory_mib is None:
        memory = torch.cuda.mem_get_info(probe.device)[0] / 2
    else:
        memory = memory_mib * 2.0**20
    images = memory / (OVERHEAD * probe.activation_bytes)
    return max(1, min(LARGEST, int(images)) // BATCH_SIZE) * BATCH_SIZE


def in_batches(
    rows: Rows, batch_size: int, run: Callable[[Rows], Result]
) -> Iterator[tuple[Rows, Result]]:
    """`run` on one batch of rows after another; where memory runs out, on halves from there on.

    Raises Unavailable where not even BATCH_SIZE images fit; smaller batches would round otherwise.
    """
    start = 0
    while start < len(rows):
        part = rows[start : start + batch_size]
        try:
            result = run(part)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if batch_size <= BATCH_SIZE:
                raise Unavailable(
                    "out-of-memory",
                    f"The memory does not hold a pass over {BATCH_SIZE} images.",
                    "Give the worker more memory, or choose a probe with a smaller network or "
                    "input size.",
                ) from error
            batch_size = max(BATCH_SIZE, batch_size // 2 // BATCH_SIZE * BATCH_SIZE)
            continue
        yield part, result
        start += len(part)


def is_out_of_memory(error: BaseException) -> bool:
    """Also of the processor's allocator, whose failure torch reports as a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
