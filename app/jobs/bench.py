"""What a worker has at hand for every job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.settings import Settings
from app.store.blobs import BlobStore
from app.store.session import Database

if TYPE_CHECKING:
    from app.embedding.probe import Probe


@dataclass(frozen=True)
class Workbench:
    """`probe` loads one by its name; `stopping`: whether the worker is to leave; `device`: of what
    kind the one is that it computes on."""

    settings: Settings
    database: Database
    blobs: BlobStore
    probe: Callable[[str], Probe]
    stopping: Callable[[], bool]
    device: str = "cpu"
