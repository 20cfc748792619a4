"""The nearest tasks: candidates, then exact ranking under the metric asked for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from sqlalchemy import or_, select
from sqlalchemy.orm import Session, joinedload

from app.embedding.distance import Compared, default_metric, get_metric, one_to_many
from app.embedding.vector import RANK, TaskEmbedding, Vector
from app.errors import InvalidRequest
from app.store import embeddings, reference
from app.store.embeddings import Space
from app.store.tables import PUBLIC, Embedding, Task, TaskTag
from app.store.vectors import IndexCache


@dataclass(frozen=True, slots=True)
class Query:
    """What neighbours are asked of; a metric on vectors needs nothing else."""

    space_id: str
    vector: Vector
    domain: Vector | None = None
    discriminants: Vector | None = None
    noise_floor: float = 0.0

    def row(self, compared: Compared, space: Space) -> Vector:
        """(D,), or all parts in one, if they can be of that space."""
        vector = self._checked("vector", self.vector, (space.dimensions,))
        if compared == "vector":
            return vector
        domain = self._checked("domain", self.domain, (space.dimensions,))
        axes = self._checked("discriminants", self.discriminants, (RANK, space.responses))
        return np.concatenate([vector, domain, axes.ravel()])

    @staticmethod
    def _checked(name: str, values: Vector | None, shape: tuple[int, ...]) -> Vector:
        if values is None or values.shape != shape:
            raise InvalidRequest(
                "length-mismatch",
                f"The metric compares `{name}`, of which the query has "
                f"{_shape(() if values is None else values.shape)} numbers and its space "
                f"{_shape(shape)}.",
                "Send the arrays as this service gave them, or choose another metric.",
            )
        signed = len(shape) == 2
        if not np.isfinite(values).all() or (not signed and (values < 0).any()):
            raise InvalidRequest(
                "vector-invalid",
                f"`{name}` holds a negative, infinite or NaN entry.",
                "Send finite entries of at least 0.",
            )
        return values


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "no"


@dataclass(frozen=True, slots=True)
class Neighbour:
    task: Task
    distance: float
    # The larger of both tasks' floors: what lies below it tells nothing. Floors are cosine
    # distances, so that other metrics have none.
    noise_floor: float | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Neighbours, nearest first.

    `metric`  the one asked for, or the default of the space
    `exact`   every task that may be a neighbour was ranked, not only an index's candidates
    """

    neighbours: list[Neighbour]
    metric: str
    exact: bool
    ranked: int


def neighbours(
    session: Session,
    indexes: IndexCache,
    tenant: str,
    query: int | Query | TaskEmbedding,
    *,
    k: int,
    metric: str | None = None,
    tag: str | None = None,
    exclude_task: str | None = None,
    search_candidates: int,
) -> Ranking:
    """The `k` nearest embedded tasks of the tenant and the reference library, in the query's space.

    `query` is an embedding's seq, or an embedding that is not in the store; without a `metric` its
    space's default is taken. Of equally distant tasks the older stands first. InvalidRequest for an
    unknown metric or a vector that does not fit; DifferentSpaces for a space that holds nothing.
    """
    asked = _resolve(session, query)
    population = reference.population(session, asked.space_id)
    metric = metric or default_metric(population)
    compared = get_metric(metric).compares
    space = embeddings.get_space(session, asked.space_id)
    target = asked.row(compared, space)
    holders = _holders(session, tenant, asked.space_id, tag, exclude_task)
    seqs = sorted(holders)
    exact = len(seqs) <= search_candidates
    if not exact:
        index = indexes.sync(session, asked.space_id, metric, population)
        found = index.search(target, max(k, search_candidates), np.array(seqs))
        seqs = sorted(found.tolist())
    t0 = reference.trivial(session, asked.space_id)
    ranked: list[tuple[float, int, float]] = []  # distance, task's seq, noise floor
    for chunk, rows in embeddings.chunks(session, seqs, compared):
        distances = one_to_many(
            target, rows, metric, epsilon=space.epsilon, trivial=t0, population=population
        )
        for seq, distance in zip(chunk, distances.tolist(), strict=True):
            ranked += [(distance, *holder) for holder in holders[seq]]
    ranked.sort()
    nearest = ranked[:k]
    tasks = _tasks(session, [task_seq for _, task_seq, _ in nearest])
    return Ranking(
        neighbours=[
            Neighbour(
                tasks[task_seq],
                distance,
                max(floor, asked.noise_floor) if metric == "cosine" else None,
            )
            for distance, task_seq, floor in nearest
        ],
        metric=metric,
        exact=exact,
        ranked=len(ranked),
    )


def _resolve(session: Session, query: int | Query | TaskEmbedding) -> Query:
    if isinstance(query, Query):
        return query
    embedding = embeddings.load(session, query) if isinstance(query, int) else query
    return Query(
        embedding.space_id,
        embedding.vector,
        embedding.domain,
        embedding.discriminants,
        embedding.noise_floor,
    )


def _holders(
    session: Session, tenant: str, space_id: str, tag: str | None, exclude_task: str | None
) -> dict[int, list[tuple[int, float]]]:
    """Embedding's seq -> (seq, noise floor) of each task that has it: the same bytes share one.

    A task whose next version is under way stands with the embedding it has.
    """
    query = (
        select(Embedding.seq, Task.seq, Embedding.noise_floor)
        .join(Task, Task.embedding_seq == Embedding.seq)
        .where(
            Embedding.space_id == space_id,
            Task.expires_at.is_(None),  # only asked about, by somebody, for a while
            or_(Task.tenant == tenant, Task.tenant == PUBLIC),
        )
    )
    if tag is not None:
        query = query.where(Task.tags.any(TaskTag.tag == tag))
    if exclude_task is not None:
        query = query.where(Task.id != exclude_task)
    holders: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for embedding_seq, task_seq, noise_floor in session.execute(query):
        holders[embedding_seq].append((task_seq, noise_floor))
    return holders


def _tasks(session: Session, seqs: list[int]) -> dict[int, Task]:
    query = select(Task).where(Task.seq.in_(seqs)).options(joinedload(Task.embedding))
    return {task.seq: task for task in session.scalars(query)}
