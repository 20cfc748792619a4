"""What any kind of search index does for neighbours and maps, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from app.embedding.distance import Ranker
from app.embedding.parts import Population
from app.store.space_index import Found
from app.store.vectors import Matrix, Rows

Search = Callable[[int, bool], Found]
"""Of how many neighbours are wanted; whether to look among the visible only, all of them."""


@dataclass(frozen=True, slots=True)
class Visible:
    """Who may be found: `conditions` on tasks joined with their embeddings, among them that a task
    is the tenant's or everyone's."""

    tenant: str
    conditions: tuple[ColumnElement[bool], ...]


@dataclass(frozen=True, slots=True)
class Unindexed:
    """Embeddings of a space that its index does not hold yet: the first few of `count`."""

    seqs: tuple[int, ...] = ()
    count: int = 0


class Points(Protocol):
    """Of a space, for a map of it."""

    def points(self, seqs: Rows) -> Matrix:
        """(M, d) unit points of embeddings that the index holds."""

    def nearest(self, seqs: Rows, k: int, onto: Rows | None = None) -> Rows:
        """(M, k) numbers of those nearest to each of the embeddings, nearest first.

        `onto`  seqs that may be neighbours, and in which they are numbered; None: `seqs`
                themselves, of which none is its own
        """


class Indexes(Protocol):
    def searching(
        self, session: Session, space_id: str, ranker: Ranker, visible: Visible, least: int
    ) -> tuple[Search, Unindexed]:
        """The search that serves the ranker's metric; of 10,000 tasks it proposes `least`."""

    def followed(
        self, session: Session, space_id: str, population: Population | None
    ) -> tuple[Points | None, Unindexed]:
        """By parts where there is a `population`; None where none are kept yet."""

    def behind(self, session: Session) -> dict[tuple[str, str], int]:
        """By space and kind of index, how many embeddings are still to be taken in: of indexes that
        this process has searched, or that are being made."""

    def wait(self) -> None:
        """Until what goes on beside searches is over."""


def kind_named(key: str) -> str:
    """`logs` or `parts`, of an index's key."""
    return key.partition("-")[0]
