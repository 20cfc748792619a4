"""TF32: products of float32 that a GPU computes with 10 bits of mantissa, where it is allowed to.

torch allows it in convolutions by default, and for the whole process. An embedding in float32 must
be the same on every device, so its passes do not, whatever trains beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_changed = threading.Condition()
_inside: list[bool] = []
_before: list[tuple[str, bool]] = []


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Within it, products and convolutions of float32 are of TF32 if, and only if, `allowed`.

    Threads that want the same share it, and one that wants the other waits until they have left: it
    is to be held for a pass, not for a run, and not within another.
    """
    with _changed:
        _changed.wait_for(lambda: allowed in _inside or not _inside)
        if not _inside:
            _before.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            _set("high" if allowed else "highest", allowed)
        _inside.append(allowed)
    try:
        yield
    finally:
        with _changed:
            _inside.remove(allowed)
            if not _inside:
                _set(*_before.pop())
                _changed.notify_all()


def _set(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions
