"""Arrays with a row an image: in memory, or beyond a size in files that nobody else can open."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import NO_SPACE, Unavailable

IN_MEMORY_BYTES = 256 * 2**20


def spooled(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array to be filled; Unavailable where the disk has no room for it."""
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if n_bytes <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        try:
            if hasattr(os, "posix_fallocate"):
                # A file without its blocks would kill the process by a signal on a full disk.
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                file.truncate(n_bytes)
        except OSError as error:
            raise Unavailable(
                NO_SPACE,
                f"There is no room for {n_bytes:,} bytes of images in {tempfile.gettempdir()}.",
                "Free space there, or point TMPDIR to a larger disk.",
            ) from error
        return np.memmap(file, dtype, "r+", shape=shape)
