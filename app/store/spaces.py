"""Spaces side by side: every task lies in one, and a tenant's tasks change over together.

Distances exist only within a space. Were each task to change over as soon as it is embedded anew,
a move of some hours would leave everybody with a part of their neighbours for as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from app.embedding.layers import Layer
from app.store.session import hold
from app.store.tables import PUBLIC, Embedding, Job, SpaceLayers, Task, now

REINDEX = "reindex"
UNFINISHED = ("queued", "running")


@dataclass(frozen=True, slots=True)
class SpaceCount:
    """How many tasks lie in a space; `library_tasks` of them are the reference library's."""

    space_id: str
    probe: str
    tasks: int
    library_tasks: int


def count_tasks(session: Session) -> list[SpaceCount]:
    """Of all tenants, but for what was only asked about, by the present embeddings; the fullest
    space first."""
    public = func.sum(case((Task.tenant == PUBLIC, 1), else_=0))
    counted = session.execute(
        select(Embedding.space_id, Task.probe, func.count(), public)
        .join(Embedding, Task.embedding_seq == Embedding.seq)
        .where(Task.expires_at.is_(None))
        .group_by(Embedding.space_id, Task.probe)
        .order_by(func.count().desc(), Embedding.space_id, Task.probe)
    )
    return [SpaceCount(space_id, probe, n, library) for space_id, probe, n, library in counted]


def describe(session: Session, space_id: str, layers: Sequence[Layer]) -> None:
    """Keeps how the filters of the space go together; a worker that serves it tells."""
    hold(session, f"layers of {space_id}")  # several workers start at once
    if session.get(SpaceLayers, space_id) is None:
        session.add(SpaceLayers(space_id=space_id, layers=[asdict(layer) for layer in layers]))


def layers(session: Session, space_id: str) -> list[Layer]:
    """In the order of travel; none where no worker told yet."""
    row = session.get(SpaceLayers, space_id)
    return [Layer(**each) for each in row.layers] if row else []


def settle(session: Session, tenant: str) -> None:
    """Makes the tenant's next embeddings the present ones, unless one of them is still awaited.

    The old ones are left to `embeddings.sweep`: to delete thousands takes longer than anybody who
    waits for this commit should wait.
    """
    hold(session, f"move of {tenant}")  # two that end the last two jobs would each await the other
    awaited = select(Job.seq).where(
        Job.tenant == tenant, Job.kind == REINDEX, Job.state.in_(UNFINISHED)
    )
    if session.scalar(awaited.limit(1)) is not None:
        return
    ended = (Job.task_seq == Task.seq, Job.kind == REINDEX, Job.state == "succeeded")
    probe = select(Job.probe).where(*ended).order_by(Job.seq.desc()).limit(1)
    session.execute(
        update(Task)
        .where(Task.tenant == tenant, Task.next_embedding_seq.is_not(None))
        .values(
            embedding_seq=Task.next_embedding_seq,
            next_embedding_seq=None,
            probe=probe.scalar_subquery(),
            problem=None,
            updated_at=now(),
        )
    )
