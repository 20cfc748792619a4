"""What a run's files and its ends are called, for those that know no network."""

from __future__ import annotations

from typing import Literal

FileName = Literal["model", "config", "card"]
FILES: dict[FileName, str] = {
    "model": "model.safetensors",
    "config": "config.json",
    "card": "README.md",
}

Ended = Literal["recipe", "target", "patience", "budget"]
"""Why a run made no more epochs."""
WHY: dict[Ended, str] = {
    "recipe": "the recipe has no more",
    "target": "the target was reached",
    "patience": "the loss on held-out images no longer fell",
    "budget": "the budget was used up",
}
