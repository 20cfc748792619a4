"""The nearest tasks: an index proposes, the embeddings themselves decide and give the distances.

Candidates that are nobody's who may see them, or that a filter leaves out, fall away. Where too few
are left, the index searches once more among the tasks that may be neighbours, and no others.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, joinedload, lazyload

from app.embedding import codes
from app.embedding.distance import Compared, Ranker, default_metric, get_metric
from app.embedding.floor import noise_floor
from app.embedding.parts import Array
from app.embedding.vector import RANK, Noise, TaskEmbedding, Vector
from app.errors import InvalidRequest
from app.store import embeddings, reference
from app.store.embeddings import Space
from app.store.parts_index import Likened
from app.store.search import Indexes, Search, Visible
from app.store.tables import Task, TaskTag
from app.store.tasks import seen_in

NEAR_TIES = 16
"""So many more than were asked for are looked at closely, where codes hardly tell them apart."""
_RANKING = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))
"""Tens of megabytes each, and a core: more side by side would take memory, and be no faster."""
_IDS_AT_ONCE = 10_000  # SQLite takes some 30,000 in one statement


@dataclass(frozen=True, slots=True)
class Query:
    """What neighbours are asked of; a metric on vectors needs nothing else."""

    space_id: str
    vector: Vector
    domain: Vector | None = None
    discriminants: Vector | None = None
    noise: Noise | None = None

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
class Filters:
    """Which tasks may be neighbours; None leaves all in."""

    tag: str | None = None
    label_kind: str | None = None
    min_classes: int | None = None
    max_classes: int | None = None
    exclude_task: str | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        if self.tag is not None:
            yield Task.tags.any(TaskTag.tag == self.tag)
        if self.label_kind is not None:
            yield Task.label_kind == self.label_kind
        if self.min_classes is not None:
            yield Task.n_classes >= self.min_classes
        if self.max_classes is not None:
            yield Task.n_classes <= self.max_classes
        if self.exclude_task is not None:
            yield Task.id != self.exclude_task


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A task and how far it is.

    `noise_floor`      the larger of both tasks' floors, as far as they are known: a distance below
                       it tells nothing; None where the task's is unknown, or the metric has none
    `distinguishable`  whether the next in rank is farther by more than the noise floor; None where
                       there is no next one, or no floor
    """

    task: Task
    distance: float
    noise_floor: float | None
    distinguishable: bool | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Neighbours, nearest first.

    `metric`     the one asked for, or the default of the space
    `exact`      every task that may be a neighbour was compared, not only an index's candidates
    `unindexed`  tasks that were left out, as the index does not hold them yet
    """

    neighbours: list[Neighbour]
    metric: str
    exact: bool
    unindexed: int


Holders = dict[int, list[int]]
"""Embedding's seq -> seqs of the tasks that have it: the same bytes share one."""


def neighbours(
    session: Session,
    indexes: Indexes,
    tenant: str,
    query: int | Query | TaskEmbedding,
    *,
    k: int,
    metric: str | None = None,
    filters: Filters = Filters(),
    search_candidates: int,
) -> Ranking:
    """The `k` nearest embedded tasks of the tenant and the reference library, in the query's space.

    `query` is an embedding's seq, or an embedding that is not in the store; without a `metric` its
    space's default is taken. Of equally distant tasks the older stands first. InvalidRequest for an
    unknown metric or a vector that does not fit; DifferentSpaces for a space that holds nothing.
    """
    asked = _resolve(session, query)
    population = reference.population(session, asked.space_id)
    chosen = get_metric(metric or default_metric(population))
    space = embeddings.get_space(session, asked.space_id)
    row = asked.row(chosen.compares, space)
    trivial = reference.trivial(session, asked.space_id)

    ranker = Ranker.of(
        row, chosen.name, epsilon=space.epsilon, trivial=trivial, population=population
    )
    conditions = (*seen_in(tenant, asked.space_id), *filters.conditions())
    visible = Visible(tenant, conditions)
    search, unindexed = indexes.searching(
        session, asked.space_id, ranker, visible, search_candidates
    )
    holders, exact = _candidates(session, search, visible, k)
    holders |= _holders(session, visible, unindexed.seqs)
    ranked: list[tuple[float, int]] = []  # distance, task's seq
    lengths: dict[int, Array] = {}
    with _RANKING:
        for chunk, rows in embeddings.chunks(session, sorted(holders), chosen.compares):
            found = ranker.rank(rows)
            for seq, distance in zip(chunk, found.distances.tolist(), strict=True):
                ranked += [(distance, task_seq) for task_seq in holders[seq]]
            if found.lengths is not None:
                lengths.update(zip(chunk, found.lengths, strict=True))
    ranked.sort()
    return Ranking(
        neighbours=_told(session, ranked, k, ranker, lengths, asked.noise),
        metric=chosen.name,
        exact=exact,
        unindexed=unindexed.count - len(unindexed.seqs),
    )


def _told(
    session: Session,
    ranked: Sequence[tuple[float, int]],
    k: int,
    ranker: Ranker,
    lengths: Mapping[int, Array],
    noise: Noise | None,
) -> list[Neighbour]:
    """The first `k`, each with its floor, and whether the next one is told from it."""
    seen = ranked[: k + 1]
    tasks = _tasks(session, [task_seq for _, task_seq in seen])
    own, floors = None, []
    if noise is not None:
        own = noise_floor(ranker.metric, noise, ranker.lengths)
    for _, task_seq in seen:
        embedding = tasks[task_seq].embedding
        assert embedding is not None  # noqa: S101
        floor = noise_floor(
            ranker.metric, embeddings.noise_in(embedding), lengths.get(embedding.seq)
        )
        floors.append(floor if floor is None or own is None else max(floor, own))
    result = []
    for place, (distance, task_seq) in enumerate(ranked[:k]):
        known = [floor for floor in floors[place : place + 2] if floor is not None]
        told = seen[place + 1][0] - distance > max(known) if len(known) == 2 else None
        result.append(Neighbour(tasks[task_seq], distance, floors[place], told))
    return result


def _resolve(session: Session, query: int | Query | TaskEmbedding) -> Query:
    if isinstance(query, Query):
        return query
    embedding = embeddings.load(session, query) if isinstance(query, int) else query
    return Query(
        embedding.space_id,
        embedding.vector,
        embedding.domain,
        embedding.discriminants,
        embedding.noise,
    )


def _candidates(session: Session, search: Search, visible: Visible, k: int) -> tuple[Holders, bool]:
    """Who may be among the `k` nearest, and whether nobody was left out unseen."""
    found = search(k, False)
    holders = _holders(session, visible, found.seqs.tolist())
    if sum(map(len, holders.values())) < k:
        found = search(k, True)
        holders = _holders(session, visible, found.seqs.tolist())
    if isinstance(found, Likened):
        holders = {seq: holders[seq] for seq in _close(found, holders, k)}
    return holders, found.exhaustive


def _close(found: Likened, holders: Holders, k: int) -> list[int]:
    """Seqs that codes put among the `k` nearest tasks, or hardly behind them."""
    kept: list[int] = []
    tasks, least = 0, -np.inf
    for seq, likeness in zip(found.seqs.tolist(), found.likeness.tolist(), strict=True):
        if likeness < least or len(kept) == k + NEAR_TIES:
            break
        if seq in holders:
            kept.append(seq)
            tasks += len(holders[seq])
            if tasks >= k and least == -np.inf:
                least = likeness - codes.ERROR
    return kept


def _holders(session: Session, visible: Visible, seqs: Sequence[int]) -> Holders:
    holders: Holders = defaultdict(list)
    for start in range(0, len(seqs), _IDS_AT_ONCE):
        query = (
            select(Task.embedding_seq, Task.seq)
            .join(Task.embedding)
            .where(Task.embedding_seq.in_(seqs[start : start + _IDS_AT_ONCE]), *visible.conditions)
        )
        for embedding_seq, task_seq in session.execute(query):
            if embedding_seq is not None:
                holders[embedding_seq].append(task_seq)
    return holders


def _tasks(session: Session, seqs: list[int]) -> dict[int, Task]:
    wanted = (joinedload(Task.embedding), lazyload(Task.archives))
    query = select(Task).where(Task.seq.in_(seqs)).options(*wanted)
    return {task.seq: task for task in session.scalars(query)}
