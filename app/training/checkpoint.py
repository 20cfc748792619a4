"""A run's state after an epoch: whole or not at all, and never another run's."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from app.errors import Conflict, Unavailable


class Checkpoint:
    """In one file, of a run that these settings tell from any other."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def load(self) -> dict[str, Any] | None:
        """The last good one, or None. Conflict where the file is of another run."""
        if not self._path.exists():
            return None
        state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        if state.pop("run") != self._digest:
            raise Conflict(
                "checkpoint-of-another-run",
                f"{self._path} is of a run with other images, another candidate or other settings.",
                "Give this run a folder of its own, or delete that file.",
            )
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Unavailable `no-space` where the disk is full: the last good one stays."""
        scratch = self._path.with_name(f".{self._path.name}-{os.getpid()}")
        try:
            with scratch.open("wb") as file:
                torch.save({**state, "run": self._digest}, file)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._path)
        except (OSError, RuntimeError) as error:  # torch's writer wraps what went wrong
            scratch.unlink(missing_ok=True)
            if _is_disk_full(error):
                raise Unavailable(
                    "no-space",
                    f"The disk of {self._path.parent} is full: the checkpoint was not written.",
                    "Make room: where the run goes on, it does from its last checkpoint.",
                ) from error
            raise


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False
