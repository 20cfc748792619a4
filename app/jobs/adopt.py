"""Runs of a data directory from before models were kept in the blob store: moved there, once."""

from __future__ import annotations

import shutil

from sqlalchemy import select

from app.settings import Settings
from app.store import archives, finetunes
from app.store.blobs import BlobStore
from app.store.session import Database
from app.store.tables import Finetune
from app.telemetry import log_event
from app.training.names import FILES


def adopt_runs(settings: Settings, database: Database, blobs: BlobStore) -> None:
    """Of each folder that was a run's, its model or the checkpoint that it goes on from.

    Before the worker takes any job. Folders of runs that have files already are left alone; killed,
    it does the rest the next time.
    """
    for directory in sorted(settings.finetune_dir.glob("*")):
        with database.session(read_only=True) as session:
            row = session.scalar(select(Finetune).where(Finetune.id == directory.name))
            if row is None or row.files:
                continue
            goes_on = row.id in finetunes.unfinished(session)
        names = {finetunes.CHECKPOINT: "checkpoint.pt"} if goes_on else dict(FILES)
        paths = {name: directory / file for name, file in names.items()}
        if not all(path.is_file() for path in paths.values()):
            continue
        files = {}
        for name, path in paths.items():
            with path.open("rb") as file:
                files[name] = blobs.put(file)
        with database.session() as session:
            still = session.get(Finetune, row.seq)
            if still is not None:
                finetunes.keep(session, still, files)
                archives.require_kept(session, blobs, *(blob.sha256 for blob in files.values()))
        shutil.rmtree(directory)
        log_event("finetune.adopted", finetune_id=row.id, files=sorted(files))
