"""Atlases: which are to be drawn anew, what is to be on them, and what is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import case, delete, insert, select
from sqlalchemy.orm import Session, lazyload

from app.store import cursors
from app.store.tables import PUBLIC, Atlas, AtlasPoint, Embedding, Task, TaskTag, now
from app.store.tasks import seen_in

_POINTS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Spot:
    """A task to be on the map, with the embedding that it has now."""

    task_seq: int
    embedding_seq: int


@dataclass(frozen=True, slots=True)
class Place:
    spot: Spot
    x: float
    y: float
    cluster: int | None
    complexity: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """What goes with a finished map beside its places; `clusters` and `dendrogram` as JSON."""

    n_settled: int
    clusters: list[dict[str, object]]
    dendrogram: list[list[float]]
    trustworthiness: float | None


def due(session: Session) -> list[tuple[str, str]]:
    """Tenant and space of every map that does not show what it should: PUBLIC's among them."""
    spaces = session.execute(
        select(Task.tenant, Embedding.space_id)
        .join(Embedding, Task.embedding_seq == Embedding.seq)
        .where(Task.expires_at.is_(None))
        .distinct()
        .order_by(Task.tenant, Embedding.space_id)
    ).all()
    drawn = {
        (atlas.tenant, atlas.space_id): atlas.signature for atlas in session.scalars(select(Atlas))
    }
    return [
        (tenant, space_id)
        for tenant, space_id in spaces
        if drawn.get((tenant, space_id)) != signature_of(spots(session, tenant, space_id))
    ]


def spots(session: Session, tenant: str, space_id: str, *, limit: int | None = None) -> list[Spot]:
    """What the tenant sees of the space, its own tasks and the library's."""
    query = (
        select(Task.seq, Embedding.seq)
        .join(Embedding, Task.embedding_seq == Embedding.seq)
        .where(*seen_in(tenant, space_id))
        .order_by(Task.seq)
        .limit(limit)
    )
    return [Spot(task_seq, seq) for task_seq, seq in session.execute(query)]


def signature_of(spots: Sequence[Spot]) -> str:
    digest = hashlib.sha256()
    for spot in spots:
        digest.update(b"%d %d\n" % (spot.task_seq, spot.embedding_seq))
    return digest.hexdigest()


def tags(session: Session, spots: Sequence[Spot]) -> list[list[str]]:
    """Of each task, in order."""
    if not spots:
        return []
    found: dict[int, list[str]] = {}
    first, last = spots[0].task_seq, spots[-1].task_seq
    query = select(TaskTag.task_seq, TaskTag.tag).where(TaskTag.task_seq.between(first, last))
    for task_seq, tag in session.execute(query.order_by(TaskTag.task_seq, TaskTag.tag)):
        found.setdefault(task_seq, []).append(tag)
    return [found.get(spot.task_seq, []) for spot in spots]


def places(session: Session, tenant: str, space_id: str) -> tuple[list[Place], int]:
    """What is on the map as it was last drawn, and how many tasks there were when all settled."""
    atlas = _find(session, tenant, space_id)
    if atlas is None:
        return [], 0
    query = select(AtlasPoint).where(AtlasPoint.atlas_seq == atlas.seq)
    found = [
        Place(
            Spot(point.task_seq, point.embedding_seq),
            point.x,
            point.y,
            point.cluster,
            point.complexity,
        )
        for point in session.scalars(query.order_by(AtlasPoint.task_seq))
    ]
    return found, atlas.n_settled


def complexities(session: Session, spots: Sequence[Spot]) -> dict[int, float]:
    """By embedding's seq."""
    result: dict[int, float] = {}
    for start in range(0, len(spots), _POINTS_AT_ONCE):
        seqs = {spot.embedding_seq for spot in spots[start : start + _POINTS_AT_ONCE]}
        query = select(Embedding.seq, Embedding.complexity).where(Embedding.seq.in_(seqs))
        result.update((seq, complexity) for seq, complexity in session.execute(query))
    return result


def draw(
    session: Session, tenant: str, space_id: str, places: Sequence[Place], drawn: Drawn
) -> None:
    """Replaces the map by another; what was deleted meanwhile is left out."""
    still = set(spots(session, tenant, space_id))
    kept = [place for place in places if place.spot in still]
    atlas = _find(session, tenant, space_id)
    if atlas is None:
        atlas = Atlas(tenant=tenant, space_id=space_id)
    atlas.signature = signature_of([place.spot for place in kept])
    atlas.n_tasks = len(kept)
    atlas.n_settled = drawn.n_settled
    atlas.clusters = list(drawn.clusters)
    atlas.dendrogram = list(drawn.dendrogram)
    atlas.trustworthiness = drawn.trustworthiness
    atlas.created_at = now()
    session.add(atlas)
    session.flush()
    session.execute(delete(AtlasPoint).where(AtlasPoint.atlas_seq == atlas.seq))
    for start in range(0, len(kept), _POINTS_AT_ONCE):
        session.execute(
            insert(AtlasPoint),
            [
                {
                    "atlas_seq": atlas.seq,
                    "task_seq": place.spot.task_seq,
                    "embedding_seq": place.spot.embedding_seq,
                    "x": place.x,
                    "y": place.y,
                    "cluster": place.cluster,
                    "complexity": place.complexity,
                }
                for place in kept[start : start + _POINTS_AT_ONCE]
            ],
        )


def empty(session: Session) -> list[int]:
    """Seqs of the maps of spaces and tenants that have no task any more."""
    return [
        atlas.seq
        for atlas in session.scalars(select(Atlas))
        if not spots(session, atlas.tenant, atlas.space_id, limit=1)
    ]


def drop(session: Session, seqs: Sequence[int]) -> None:
    session.execute(delete(Atlas).where(Atlas.seq.in_(seqs)))


def find(session: Session, tenant: str, space_id: str | None) -> Atlas | None:
    """The tenant's map of the space, else of its fullest one; PUBLIC's where it has none."""
    query = select(Atlas).where(Atlas.tenant.in_((tenant, PUBLIC)))
    if space_id is not None:
        query = query.where(Atlas.space_id == space_id)
    own_first = case((Atlas.tenant == tenant, 0), else_=1)
    return session.scalar(query.order_by(own_first, Atlas.n_tasks.desc(), Atlas.seq).limit(1))


def page(
    session: Session,
    atlas: Atlas,
    *,
    limit: int,
    cursor: str | None,
    tag: str | None,
    cluster: int | None,
) -> tuple[list[tuple[AtlasPoint, Task]], str | None]:
    """Points with their tasks, newest first, and the cursor of the next page."""
    query = select(Task).join(AtlasPoint, AtlasPoint.task_seq == Task.seq)
    query = query.where(AtlasPoint.atlas_seq == atlas.seq).options(lazyload(Task.archives))
    if tag is not None:
        query = query.where(Task.tags.any(TaskTag.tag == tag))
    if cluster is not None:
        query = query.where(AtlasPoint.cluster == cluster)
    tasks, next_cursor = cursors.page(session, Task, query, limit=limit, cursor=cursor)
    points = {
        point.task_seq: point
        for point in session.scalars(
            select(AtlasPoint).where(
                AtlasPoint.atlas_seq == atlas.seq,
                AtlasPoint.task_seq.in_([task.seq for task in tasks]),
            )
        )
    }
    return [(points[task.seq], task) for task in tasks], next_cursor


def _find(session: Session, tenant: str, space_id: str) -> Atlas | None:
    return session.scalar(select(Atlas).where(Atlas.tenant == tenant, Atlas.space_id == space_id))
