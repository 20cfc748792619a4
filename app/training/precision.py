"""Half precision by autocast, where a device's card or a run's settings ask for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Nothing for fp32 and tf32, which are no matter of casting."""
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()
