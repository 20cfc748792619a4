"""Outcome tables as files, as what can be sent."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from app.errors import InvalidRequest


def read_table(path: Path) -> tuple[bytes, str]:
    """What is in it, unpacked, and its media type. Raises InvalidRequest for a damaged one."""
    from app.cost.outcome_table import MEDIA_TYPES, kind_of

    opener = gzip.open if path.suffix == ".gz" else Path.open
    with opener(path, "rb") as stream:
        try:
            return stream.read(), MEDIA_TYPES[kind_of(path)]
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise InvalidRequest(
                "table-damaged",
                f"{path} is not what gzip makes, or not all of it.",
                "Pack the table again, or name it unpacked.",
            ) from None
