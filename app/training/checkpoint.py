"""A run's state after an epoch: whole or not at all, and never another run's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from app.errors import Conflict
from app.training.whole import write_whole


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
        write_whole(
            self._path,
            lambda file: torch.save({**state, "run": self._digest}, file),
            "checkpoint",
        )
