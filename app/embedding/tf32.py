"""TF32: products of float32 that a GPU computes with 10 bits of mantissa, where it is allowed to.

torch allows it in convolutions by default. An embedding in float32 must be the same on every
device, so its passes do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Within it, products and convolutions of float32 are of TF32 if, and only if, `allowed`."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
