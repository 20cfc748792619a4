"""Outcome tables as files, as what can be sent."""

from __future__ import annotations

import gzip
from pathlib import Path


def read_table(path: Path) -> tuple[bytes, str]:
    """What is in it, unpacked, and its media type."""
    from app.cost.outcome_table import MEDIA_TYPES, kind_of

    opener = gzip.open if path.suffix == ".gz" else Path.open
    with opener(path, "rb") as stream:
        return stream.read(), MEDIA_TYPES[kind_of(path)]
