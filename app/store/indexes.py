"""The search indexes of a process, each brought in line with the database before it is used.

What was added and deleted since the last search is read off two watermarks, the highest seq of the
space's embeddings and of its graves. A process compares all of an index with the table once, at its
first search: the table may be another since, restored from a backup, or graves may be forgotten.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.embedding.distance import Ranker
from app.embedding.parts import Population
from app.errors import DifferentSpaces, Unavailable
from app.settings import VectorIndex
from app.store import embeddings, pgvector, points, reference
from app.store.logs_index import LogsIndex
from app.store.parts_index import PartsIndex, parts_key
from app.store.search import Indexes, Search, Unindexed, Visible, kind_named
from app.store.session import Database
from app.store.space_index import GONE, SpaceIndex, proposals
from app.store.tables import Embedding, Task
from app.store.vectors import Rows
from app.telemetry import log_event

AT_ONCE = 128
"""So many new embeddings a search takes in itself; more are taken in beside it."""
RANKED_UNINDEXED = 128
"""So many that are not taken in yet are ranked all the same."""


class Follower:
    """Keeps one index in line with the embeddings of its space."""

    def __init__(self, index: SpaceIndex, space_id: str) -> None:
        self.index = index
        self._space_id = space_id
        self._compared = False
        self._mutex = threading.Lock()
        self._beside: threading.Thread | None = None

    def follow(self, session: Session) -> Unindexed:
        """What of the embeddings that this session sees the index does not hold afterwards.

        An index that cannot be written, on a full disk, say, serves as it is.
        """
        self.index.shelf.refresh()
        if not self._is_in_line(session) and self._behind(session) <= AT_ONCE:
            self.try_to_catch_up(session, fit=False)
        in_line = self._is_in_line(session)
        if not in_line or self.index.needs_fit:
            self._start_beside(session)
        if in_line:
            return Unindexed()
        first = embeddings.added(
            session, self._space_id, self.index.shelf.manifest.seen, RANKED_UNINDEXED
        )
        return Unindexed(tuple(seq for seq, _ in first), self._behind(session))

    def behind(self, session: Session) -> int:
        self.index.shelf.refresh()
        return self._behind(session)

    def wait(self) -> None:
        """Until what goes on beside searches is over."""
        if self._beside is not None:
            self._beside.join()

    def catch_up(self, session: Session, *, fit: bool = True) -> None:
        """Takes in all that the session sees, a chunk at a time, and makes the index fit it."""
        shelf = self.index.shelf
        with shelf.writing():
            newest, grave = embeddings.newest(session, self._space_id)
            if self._compared:
                gone = embeddings.buried(session, self._space_id, shelf.manifest.buried)
                self.index.remove(gone, grave)
                missing = embeddings.added(session, self._space_id, shelf.manifest.seen)
            else:
                missing = self._compare(session, newest, grave)
        for start in range(0, len(missing), AT_ONCE):
            with shelf.writing():  # in between others search, or take in the same
                self._take_in(session, missing[start : start + AT_ONCE])
        with shelf.writing():
            shelf.publish(seen=max(newest, shelf.manifest.seen))
            self._compared = True
            if fit and self.index.needs_fit:
                self.index.fit()

    def _is_in_line(self, session: Session) -> bool:
        newest, grave = embeddings.newest(session, self._space_id)
        manifest = self.index.shelf.manifest
        return self._compared and manifest.seen >= newest and manifest.buried >= grave

    def _behind(self, session: Session) -> int:
        """How many embeddings are to be taken in, about so until all have been compared once."""
        if self._compared:
            return embeddings.count(session, self._space_id, self.index.shelf.manifest.seen)
        held = int((self.index.seqs() != GONE).sum())
        return max(0, embeddings.count(session, self._space_id) - held)

    def _start_beside(self, session: Session) -> None:
        bind = session.get_bind()

        def work() -> None:
            with Session(bind) as own:
                self.try_to_catch_up(own, fit=True)

        with self._mutex:
            if self._beside is None or not self._beside.is_alive():
                self._beside = threading.Thread(target=work, name="index-catch-up", daemon=True)
                self._beside.start()

    def try_to_catch_up(self, session: Session, *, fit: bool) -> None:
        try:
            self.catch_up(session, fit=fit)
        except (OSError, Unavailable) as error:
            log_event(
                "index.behind",
                level=logging.ERROR,
                space_id=self._space_id,
                detail=str(error),
                remedy="Make room on the disk of the data directory; searches go on meanwhile.",
            )

    def _compare(self, session: Session, newest: int, grave: int) -> list[tuple[int, str]]:
        """Removes what the table does not have; what of it the index has not."""
        present = embeddings.added(session, self._space_id, 0)
        marks = {seq: mark_of(digest) for seq, digest in present}
        held = zip(self.index.seqs().tolist(), self.index.marks().tolist(), strict=True)
        # What is newer than this session's view was another's to take in, and stays.
        wrong = [
            seq for seq, mark in held if seq != GONE and seq <= newest and marks.get(seq) != mark
        ]
        gone = embeddings.buried(session, self._space_id, self.index.shelf.manifest.buried)
        self.index.remove([*wrong, *gone], grave)
        kept = set(self.index.seqs().tolist())
        return [(seq, digest) for seq, digest in present if seq not in kept]

    def _take_in(self, session: Session, chunk: Sequence[tuple[int, str]]) -> None:
        """Those of the chunk that are still there and that nobody has taken in meanwhile."""
        seqs = self.index.seqs()
        held = set(seqs[seqs >= chunk[0][0]].tolist())
        still = embeddings.which(session, [seq for seq, _ in chunk])
        wanted = [(seq, digest) for seq, digest in chunk if seq in still and seq not in held]
        if wanted:
            rows = embeddings.matrix(session, [seq for seq, _ in wanted], self.index.compares)
            marks = np.array([mark_of(digest) for _, digest in wanted], np.int64)
            seen = chunk[-1][0] if self._compared else 0
            self.index.take_in([seq for seq, _ in wanted], marks, rows, seen)


def open_indexes(choice: VectorIndex, directory: Path, database: Database) -> Indexes:
    """Unavailable where pgvector is asked for and the database has it not."""
    if choice == "faiss":
        return FaissIndexes(directory)
    if pgvector.is_available(database):
        return pgvector.PgvectorIndexes(database)
    if choice == "auto":
        return FaissIndexes(directory)
    raise Unavailable(
        "pgvector-missing",
        "The database has no extension `vector`, or the user may not create it.",
        "Install pgvector on the PostgreSQL server, or set TASK2VEC_VECTOR_INDEX to faiss.",
    )


class FaissIndexes:
    """Of all spaces that this process searches, under one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._followers: dict[tuple[str, str], Follower] = {}
        self._mutex = threading.Lock()

    def searching(
        self, session: Session, space_id: str, ranker: Ranker, visible: Visible, least: int
    ) -> tuple[Search, Unindexed]:
        def among(narrowed: bool) -> Rows | None:
            if not narrowed:
                return None
            query = select(Embedding.seq).join(Task, Task.embedding_seq == Embedding.seq)
            seqs: Rows = np.unique(list(session.scalars(query.where(*visible.conditions))))
            return seqs

        parts, row = ranker.parts, ranker.query.astype(np.float32)
        if parts is None or ranker.population is None:
            by_logs, unindexed = self.by_logs(session, space_id)
            n = proposals(least, len(by_logs.shelf))
            return lambda k, narrowed: by_logs.search(
                row, max(n, 2 * k), among(narrowed)
            ), unindexed
        by_parts, unindexed = self.by_parts(session, space_id, ranker.population)
        weights = ranker.metric.weights
        n = proposals(least, len(by_parts.shelf))
        return (
            lambda k, narrowed: by_parts.search(parts, weights, max(n, 2 * k), among(narrowed)),
            unindexed,
        )

    def by_parts(
        self, session: Session, space_id: str, population: Population
    ) -> tuple[PartsIndex, Unindexed]:
        """DifferentSpaces where the session sees no embedding of the space."""
        follower = self._follower(session, space_id, population)
        assert isinstance(follower.index, PartsIndex)  # noqa: S101
        return follower.index, follower.follow(session)

    def by_logs(self, session: Session, space_id: str) -> tuple[LogsIndex, Unindexed]:
        """The same for metrics on vectors."""
        follower = self._follower(session, space_id, None)
        assert isinstance(follower.index, LogsIndex)  # noqa: S101
        return follower.index, follower.follow(session)

    def followed(
        self, session: Session, space_id: str, population: Population | None
    ) -> tuple[SpaceIndex, Unindexed]:
        follower = self._follower(session, space_id, population)
        return follower.index, follower.follow(session)

    def opened(self, session: Session, space_id: str, population: Population | None) -> SpaceIndex:
        """As it is, by parts where there is a `population`."""
        return self._follower(session, space_id, population).index

    def behind(self, session: Session) -> dict[tuple[str, str], int]:
        return {
            (space_id, kind_named(key)): follower.behind(session)
            for (space_id, key), follower in list(self._followers.items())
        }

    def follow_all(self, session: Session) -> None:
        """Has every index there is let go of embeddings that were deleted, though nobody searches;
        one that can serve no search any more goes as a whole."""
        for directory in sorted(path for path in self._directory.glob("*/*") if path.is_dir()):
            try:
                follower = self._follower_at(session, directory.parent.name, directory.name)
            except DifferentSpaces:
                shutil.rmtree(directory)
            else:
                follower.try_to_catch_up(session, fit=False)

    def wait(self) -> None:
        for follower in list(self._followers.values()):
            follower.wait()

    def _follower_at(self, session: Session, space_id: str, key: str) -> Follower:
        """DifferentSpaces where no embedding, or no library, is there that it would be of."""
        if key == points.LOGS:
            return self._follower(session, space_id, None)
        population = reference.population(session, space_id)
        if population is None or key != parts_key(population):
            raise DifferentSpaces(
                "library-gone", f"No library is loaded that {key} is of.", "It can be deleted."
            )
        return self._follower(session, space_id, population)

    def _follower(self, session: Session, space_id: str, population: Population | None) -> Follower:
        key = points.LOGS if population is None else parts_key(population)
        with self._mutex:
            follower = self._followers.get((space_id, key))
            if follower is None:
                space = embeddings.get_space(session, space_id)
                directory = self._directory / space_id / key
                index: SpaceIndex = (
                    LogsIndex(directory, space)
                    if population is None
                    else PartsIndex(directory, space, population)
                )
                follower = self._followers[space_id, key] = Follower(index, space_id)
        return follower


def mark_of(recipe_digest: str) -> int:
    """63 bits of what an embedding was made of."""
    digest = hashlib.blake2b(recipe_digest.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
