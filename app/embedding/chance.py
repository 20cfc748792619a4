"""Torch's generator of random numbers is one for all threads: who draws from it holds it.

A worker trains, loads networks and waits for jobs side by side. What a run draws must not hang on
what else is loaded meanwhile, so nothing here draws from Python's own generator either, which any
library's thread may.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

held = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What is drawn within begins at `seed`; afterwards the generator stands where it stood."""
    with held, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def begin(seed: int) -> None:
    """What is drawn from now on, outside of `seeded`, begins at `seed`."""
    with held:
        torch.manual_seed(seed)
