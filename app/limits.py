"""What an uploaded archive may be, by the settings: for every place that reads one."""

from __future__ import annotations

from app.embedding.archive import ArchiveLimits
from app.settings import Settings


def archive_limits(settings: Settings) -> ArchiveLimits:
    return ArchiveLimits(
        max_entries=settings.max_archive_entries,
        max_expanded_bytes=settings.max_expanded_bytes,
        max_entry_bytes=settings.max_entry_bytes,
        max_expansion_ratio=settings.max_expansion_ratio,
    )
