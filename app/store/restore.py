"""A backup laid into an empty system, all of it or nothing.

Every part is held against its digest first. Then blobs are put where they belong, where nothing
refers to them yet, and last the rows, in one unit of work.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy.orm import Session

from app.errors import Conflict
from app.store import jobs, snapshots
from app.store.backups import Backups, Manifest
from app.store.blobs import BlobStore, digest_of
from app.store.progress import OnProgress, counting
from app.store.session import Database, revisions

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class System:
    """What a backup is restored into."""

    database: Database
    blobs: BlobStore
    index_dir: Path
    migrations_dir: Path


def verify(backups: Backups, manifest: Manifest, on_progress: OnProgress = lambda *_: None) -> None:
    """Conflict where a part is not there or holds other bytes than it did."""
    there, parts = set(backups.parts.stored()), sorted(manifest.parts)
    read = counting(parts, len(parts), partial(on_progress, "reading parts"))
    bad = [part for part in read if part not in there or _is_other(backups, part)]
    if bad:
        raise Conflict(
            "backup-damaged",
            f"{len(bad)} parts of the backup are not there or hold other bytes than they did: "
            f"{', '.join(bad[:_SHOWN])}{' ...' if len(bad) > _SHOWN else ''}.",
            "Nothing was changed. Restore another one: `task2vec backup --list` names them.",
        )


def restore(
    backups: Backups,
    manifest: Manifest,
    system: System,
    on_progress: OnProgress = lambda *_: None,
) -> None:
    """Conflict where the system is not empty, or a newer version made the backup.

    What a run that was interrupted had put there already is taken as it is.
    """
    if manifest.schema_revision not in revisions(system.migrations_dir):
        raise Conflict(
            "backup-newer",
            f"Version {manifest.app_version} of the service made the backup, which is newer.",
            "Install that version, or a later one.",
        )
    with system.database.session(read_only=True) as session:
        _require_empty(session)
    verify(backups, manifest, on_progress)
    with tempfile.TemporaryDirectory() as scratch:
        snapshot = Path(scratch) / "database.sqlite"
        with backups.parts.open(manifest.database) as stream, snapshot.open("wb") as file:
            shutil.copyfileobj(stream, file)
        lacking = sorted(set(manifest.blobs).difference(system.blobs.stored()))
        for sha256 in counting(lacking, len(lacking), partial(on_progress, "copying blobs")):
            with backups.parts.open(sha256) as stream:
                system.blobs.put(stream)
        with system.database.session() as session:
            _require_empty(session)
            on_rows = partial(on_progress, "writing rows")
            snapshots.lay(snapshot, session, system.migrations_dir, on_rows)
            jobs.release_all(session)
        shutil.rmtree(system.index_dir, ignore_errors=True)  # of other embeddings


def _require_empty(session: Session) -> None:
    found = snapshots.tenants_rows(session)
    if found:
        counted = ", ".join(f"{count} of {name}" for name, count in found.items())
        raise Conflict(
            "not-empty",
            f"The database has rows that somebody owns: {counted}.",
            "Nothing was changed. Name another data directory, and another "
            "TASK2VEC_DATABASE_URL and TASK2VEC_BLOB_URL where those are set.",
        )


def _is_other(backups: Backups, sha256: str) -> bool:
    with backups.parts.open(sha256) as stream:
        return digest_of(stream) != sha256
