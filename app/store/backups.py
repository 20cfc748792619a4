"""Backups: a snapshot of the database, what it refers to, and last a manifest that names it all.

A directory or bucket holds any number of them. Parts lie there by their SHA-256, so that one which
another backup brought is not brought again. A manifest is named by its own: one that was torn is
none.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import __version__
from app.errors import Conflict, InvalidRequest, NotFound, Unavailable
from app.store import archives, snapshots
from app.store.blobs import BlobStore, open_blobs
from app.store.progress import OnCount, OnProgress, counting
from app.store.session import Database, revisions
from app.store.tables import PUBLIC, Task, now

_TURNS = 5
_TORN_SECONDS = 86_400.0  # no part takes longer to arrive
_SHOWN = 12

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """`missing`: blobs that were so already when the backup was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_at: datetime
    app_version: str
    schema_revision: str
    tasks: int
    database: Sha256
    blobs: list[Sha256]
    missing: list[str]

    @property
    def parts(self) -> set[str]:
        return {self.database, *self.blobs}


class Backups:
    """Those at a local directory or `s3://BUCKET/PREFIX`."""

    def __init__(self, place: str, *, create: bool = False) -> None:
        url = _url(place)
        if not create and url.startswith("file:") and not Path(place).is_dir():
            raise _none_at(place)
        self.place = place
        self.parts = open_blobs(f"{url}/parts")
        self._manifests = open_blobs(f"{url}/backups")

    def listed(self) -> list[tuple[str, Manifest]]:
        """By id, the newest first."""
        found = [(digest[:_SHOWN], self._read(digest)) for digest in self._manifests.stored()]
        return sorted(found, key=lambda each: each[1].made_at, reverse=True)

    def find(self, backup_id: str | None) -> tuple[str, Manifest]:
        """The one of that id, or the newest."""
        found = self.listed()
        for each in found:
            if backup_id is None or each[0] == backup_id:
                return each
        if found:
            raise NotFound(
                "unknown-backup",
                f"There is no backup {backup_id!r} at {self.place}.",
                f"`task2vec backup --list {self.place}` names those there are.",
            )
        raise _none_at(self.place)

    def add(self, manifest: Manifest) -> str:
        """Once all parts are there; its id."""
        written = self._manifests.put(io.BytesIO(manifest.model_dump_json(indent=1).encode()))
        return written.sha256[:_SHOWN]

    def keep(self, n: int, on_part: OnCount = lambda *_: None) -> int:
        """Forgets all but the newest, and deletes parts that none of those needs; how many went."""
        digests = {digest[:_SHOWN]: digest for digest in self._manifests.stored()}
        found = self.listed()
        for backup_id, _ in found[n:]:
            self._manifests.delete(digests[backup_id])
        needed = {part for _, manifest in found[:n] for part in manifest.parts}
        gone = [part for part in self.parts.stored() if part not in needed]
        for part in counting(gone, len(gone), on_part):
            self.parts.delete(part)
        for store in (self.parts, self._manifests):
            store.sweep(_TORN_SECONDS)
        return len(found[n:])

    def _read(self, digest: str) -> Manifest:
        with self._manifests.open(digest) as stream:
            data = stream.read()
        if hashlib.sha256(data).hexdigest() != digest:
            raise self._unreadable(digest, "holds other bytes than it did")
        try:
            return Manifest.model_validate_json(data)
        except ValidationError as error:
            raise self._unreadable(digest, "is of a kind not known here") from error

    def _unreadable(self, digest: str, why: str) -> Conflict:
        return Conflict(
            "backup-unreadable",
            f"The manifest {digest[:_SHOWN]} at {self.place} {why}.",
            "Install the newest version of the service, or delete that file.",
        )


def make(
    database: Database,
    blobs: BlobStore,
    migrations_dir: Path,
    backups: Backups,
    on_progress: OnProgress = lambda *_: None,
) -> tuple[str, Manifest]:
    """A new backup, and its id; others may use the service meanwhile.

    What a task had may be deleted with it before it was copied, and a checkpoint give way to the
    next: then the snapshot is of a state that is no more, and is taken again. Each turn finds
    nearly all parts there already.
    """
    for _ in range(_TURNS):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "database.sqlite"
            with database.session(read_only=True) as session:
                snapshots.take(session, path, migrations_dir, partial(on_progress, "copying rows"))
                wanted, tasks = archives.needed(session), _count_tasks(session)
            copied = _copy_blobs(
                blobs, backups.parts, wanted, partial(on_progress, "copying blobs")
            )
            missing = wanted - copied
            with database.session(read_only=True) as session:
                still = archives.needed(session)
            if not missing <= still:
                continue
            on_progress("storing the rows", 0, 0)
            with path.open("rb") as file:
                taken = backups.parts.put(file)
        manifest = Manifest(
            made_at=now(),
            app_version=__version__,
            schema_revision=revisions(migrations_dir)[0],
            tasks=tasks,
            database=taken.sha256,
            blobs=sorted(copied),
            missing=sorted(missing),
        )
        if manifest.parts <= set(backups.parts.stored()):  # or another `--keep` took some away
            return backups.add(manifest), manifest
    raise Unavailable(
        "backup-outrun",
        f"What was to be copied was deleted before it could be, {_TURNS} times.",
        "Run it again: what was copied stays there.",
    )


def _count_tasks(session: Session) -> int:
    own = select(func.count()).select_from(Task).where(Task.tenant != PUBLIC)
    return session.scalar(own) or 0


def _copy_blobs(
    source: BlobStore, parts: BlobStore, wanted: set[str], on_blob: OnCount
) -> set[str]:
    """Those that are in `parts` afterwards; damaged ones are not."""
    there = set(parts.stored())
    copied, lacking = there & wanted, sorted(wanted - there)
    for sha256 in counting(lacking, len(lacking), on_blob):
        with suppress(NotFound), source.open(sha256) as stream:
            found = parts.put(stream).sha256
            if found == sha256:
                copied.add(sha256)
            elif found not in there:
                parts.delete(found)
    return copied


def _url(place: str) -> str:
    scheme, has_scheme, rest = place.partition("://")
    if not has_scheme:
        return Path(place).absolute().as_uri()
    if scheme == "s3" and rest.strip("/"):
        return place.rstrip("/")
    raise InvalidRequest(
        "place-invalid",
        f"{place} is no place for backups.",
        "Name a local directory, or s3://BUCKET/PREFIX.",
    )


def _none_at(place: str) -> NotFound:
    return NotFound(
        "no-backup",
        f"There is no backup at {place}.",
        "Make one with `task2vec backup`, or name the place where one is.",
    )
