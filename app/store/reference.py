"""The reference library in the database: shipped embeddings as tasks that everyone can read."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import delete, func, select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from app.embedding.parts import Population
from app.embedding.vector import Noise, TaskEmbedding, no_discriminants, provenance_from
from app.store import embeddings
from app.store.session import SHIPPED, hold
from app.store.tables import PUBLIC, Embedding, ReferenceLibrary, Task, TaskTag
from app.telemetry import log_event

_UNREADABLE = (
    *(OSError, EOFError, zipfile.BadZipFile),  # the file
    *(KeyError, IndexError, ValueError, TypeError),  # what it holds
    *(IntegrityError, DataError),  # names that stand twice in it, or are too long
)


def load_reference(session: Session, models_dir: Path) -> int:
    """Brings the PUBLIC tasks in line with `models/reference/*.npz`; how many tasks were written.

    A library whose bytes are as they were is left alone; one whose file is gone goes; one that
    cannot be read is told of, and what was loaded before it stays.
    """
    hold(session, SHIPPED)
    paths = sorted((models_dir / "reference").glob("*.npz"))
    _drop_all_but(session, {path.stem for path in paths})
    written = 0
    for path in paths:
        try:
            with session.begin_nested():
                loaded = _load_library(session, path)
        except _UNREADABLE as error:
            log_event(
                "reference.unreadable",
                level=logging.ERROR,
                path=str(path),
                detail=f"The reference library does not fit: {error}",
                remedy="Restore the file that came with this version, or build it anew.",
            )
        else:
            written += loaded
    return written


def trivial(session: Session, space_id: str) -> float | None:
    """t0 of the asymmetric distance in that space, where a library states it."""
    return session.scalar(
        select(ReferenceLibrary.trivial)
        .where(ReferenceLibrary.space_id == space_id)
        .order_by(ReferenceLibrary.probe)
        .limit(1)
    )


def population(session: Session, space_id: str) -> Population | None:
    """What parts are centred on in that space, where a library states it."""
    data = session.scalar(
        select(ReferenceLibrary.population)
        .where(ReferenceLibrary.space_id == space_id, ReferenceLibrary.population.is_not(None))
        .order_by(ReferenceLibrary.probe)
        .limit(1)
    )
    return None if data is None else Population(*np.frombuffer(data, dtype="<f4").reshape(2, -1))


def _drop_all_but(session: Session, probes: set[str]) -> None:
    gone = select(ReferenceLibrary).where(ReferenceLibrary.probe.not_in(probes))
    for library in session.scalars(gone).all():
        _remove_tasks(session, library.probe)
        session.delete(library)


def _load_library(session: Session, path: Path) -> int:
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    probe = path.stem
    present = session.get(ReferenceLibrary, probe, with_for_update=True)
    if present is not None and present.digest == digest:
        return 0
    _remove_tasks(session, probe)
    written = 0
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        library = dict(file)
        session.merge(
            ReferenceLibrary(
                probe=probe,
                digest=digest,
                space_id=str(library["space_id"]),
                trivial=float(library["trivial"]),
                population=_population(library),
            )
        )
        for card, embedding in _entries(library):
            task_id = f"ref-{probe}-{card['name']}"  # libraries of several probes hold like sets
            recipe_digest = hashlib.sha256(f"{digest}\n{task_id}".encode()).hexdigest()
            row = embeddings.add(session, PUBLIC, recipe_digest, embedding)
            session.add(_task(task_id, probe, card, row))
            written += 1
    return written


def _remove_tasks(session: Session, probe: str) -> None:
    of_probe = (Task.tenant == PUBLIC, Task.probe == probe)
    seqs = session.scalars(select(Task.embedding_seq).where(*of_probe)).all()
    session.execute(delete(Task).where(*of_probe))
    embeddings.remove(session, Embedding.seq.in_(seqs))


def _population(library: Mapping[str, npt.NDArray[Any]]) -> bytes | None:
    """As the row keeps it; ValueError where it is not one of the library's filters."""
    if "population_label" not in library:
        return None
    means = np.stack([library["population_label"], library["population_domain"]])
    if means.shape != (2, library["vector"].shape[1]) or not np.isfinite(means).all():
        raise ValueError(f"its population is {means.shape}, or not finite")
    return means.astype("<f4").tobytes()


def _entries(
    library: dict[str, npt.NDArray[Any]],
) -> Iterator[tuple[dict[str, Any], TaskEmbedding]]:
    epsilon = float(library["epsilon"])
    vectors = _from_logs(library["vector"], epsilon)
    domains = _from_logs(library["domain"], epsilon)
    axes = library.get("discriminants")
    # Kept relative to the vector's entries.
    draw_errors = library["draw_error"].astype(np.float32) * vectors
    sampling_errors = library["sampling_error"].astype(np.float32) * vectors
    noises = json.loads(str(library["noise"]))
    for row, card in enumerate(json.loads(str(library["tasks"]))):
        yield (
            card,
            TaskEmbedding(
                vector=vectors[row],
                domain=domains[row],
                discriminants=no_discriminants() if axes is None else axes[row].astype(np.float32),
                draw_error=draw_errors[row],
                sampling_error=sampling_errors[row],
                noise=Noise(**noises[row]),
                epsilon=epsilon,
                space_id=str(library["space_id"]),
                provenance=provenance_from(card["provenance"]),
            ),
        )


def _from_logs(logs: npt.NDArray[np.float16], epsilon: float) -> npt.NDArray[np.float32]:
    """(T, D) of the entries whose log2(e + epsilon) was kept in float16."""
    entries = np.maximum(np.exp2(logs.astype(np.float64)) - epsilon, 0)
    entries[logs <= np.float16(np.log2(epsilon))] = 0  # dead filters stay exactly 0
    return entries.astype(np.float32)


def _task(task_id: str, probe: str, card: dict[str, Any], embedding: Embedding) -> Task:
    return Task(
        id=task_id,
        tenant=PUBLIC,
        name=card["name"],
        label_kind=card["label_kind"],
        label_kind_asked=card["label_kind"],
        probe=probe,
        status="ready",
        version=1,
        source=card["source"],
        licence=card["licence"],
        n_images=card["n_images"],
        n_classes=card["n_classes"],
        embedding=embedding,
        tags=[TaskTag(tag=tag) for tag in sorted(set(card["tags"]))],
    )


def easier(session: Session, space_id: str, complexity: float) -> tuple[int, int]:
    """How many of the library's tasks in the space ask for less, and of how many."""
    less = func.count().filter(Embedding.complexity < complexity)
    library = (Embedding.tenant == PUBLIC, Embedding.space_id == space_id)
    count, tasks = session.execute(select(less, func.count()).where(*library)).one()
    return count, tasks
