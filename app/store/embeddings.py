"""Task embeddings in the database: float32 bytes, one row per tenant and recipe digest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from app.embedding.distance import Compared
from app.embedding.vector import RANK, Noise, TaskEmbedding, Vector, provenance_from
from app.errors import DifferentSpaces, NotFound
from app.store import points
from app.store.session import hold
from app.store.tables import PUBLIC, Embedding, EmbeddingArrays, EmbeddingGrave, Task

Matrix = npt.NDArray[np.float32]

_CHUNK_ROWS = (
    32  # of the default probe some 3 MB, of all parts 7 MB; a ranker takes some times that
)
_PARTS = (EmbeddingArrays.vector, EmbeddingArrays.domain, EmbeddingArrays.discriminants)
UNUSED = (
    Embedding.tenant != PUBLIC,
    ~exists().where(Task.embedding_seq == Embedding.seq),
    ~exists().where(Task.next_embedding_seq == Embedding.seq),
)


@dataclass(frozen=True, slots=True)
class Space:
    """`dimensions` of a vector, `responses` of a row of discriminants."""

    dimensions: int
    responses: int
    epsilon: float


def get_space(session: Session, space_id: str) -> Space:
    """What all embeddings of the space share; DifferentSpaces where the store holds none of it."""
    query = select(
        func.length(EmbeddingArrays.vector),
        func.length(EmbeddingArrays.discriminants),
        Embedding.epsilon,
    ).join(Embedding.arrays)
    found = session.execute(query.where(Embedding.space_id == space_id).limit(1)).first()
    if found is None:
        raise DifferentSpaces(
            "unknown-space",
            f"No embedding here lies in the space {space_id!r}.",
            "Embed with a probe of this service, and take `space_id` from what it gives.",
        )
    vector_bytes, axes_bytes, epsilon = found
    size = np.dtype(np.float32).itemsize
    return Space(vector_bytes // size, axes_bytes // (size * RANK), epsilon)


def find(session: Session, tenant: str, recipe_digest: str) -> Embedding | None:
    return session.scalar(
        select(Embedding).where(
            Embedding.tenant == tenant, Embedding.recipe_digest == recipe_digest
        )
    )


def add(session: Session, tenant: str, recipe_digest: str, embedding: TaskEmbedding) -> Embedding:
    """The row of that recipe; where there is one already, it stays as it is."""
    found = find(session, tenant, recipe_digest)
    if found is not None:
        return found
    row = Embedding(
        tenant=tenant,
        recipe_digest=recipe_digest,
        space_id=embedding.space_id,
        arrays=EmbeddingArrays(
            vector=_to_bytes(embedding.vector),
            domain=_to_bytes(embedding.domain),
            discriminants=_to_bytes(embedding.discriminants),
            draw_error=_to_bytes(embedding.draw_error),
            sampling_error=_to_bytes(embedding.sampling_error),
        ),
        complexity=embedding.complexity,
        noise_floor=embedding.noise_floor,
        noise=asdict(embedding.noise),
        epsilon=embedding.epsilon,
        provenance=asdict(embedding.provenance),
    )
    in_order_of_commits(session)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:  # another worker of this tenant embedded the same bytes meanwhile
        found = find(session, tenant, recipe_digest)
        if found is None:
            raise
        return found
    points.keep(session, row, embedding)
    return row


def load(session: Session, embedding_seq: int) -> TaskEmbedding:
    (found,) = load_all(session, [embedding_seq])
    return found


def load_all(session: Session, seqs: Sequence[int]) -> list[TaskEmbedding]:
    """In the order of `seqs`, which may repeat; as many as a statement takes."""
    query = select(Embedding).options(joinedload(Embedding.arrays))
    rows = {row.seq: row for row in session.scalars(query.where(Embedding.seq.in_(set(seqs))))}
    for seq in seqs:
        if seq not in rows:
            raise _unknown(seq)
    found = {seq: _read(row) for seq, row in rows.items()}
    return [found[seq] for seq in seqs]


def _read(row: Embedding) -> TaskEmbedding:
    return TaskEmbedding(
        vector=_from_bytes(row.arrays.vector),
        domain=_from_bytes(row.arrays.domain),
        discriminants=_from_bytes(row.arrays.discriminants).reshape(RANK, -1),
        draw_error=_from_bytes(row.arrays.draw_error),
        sampling_error=_from_bytes(row.arrays.sampling_error),
        noise=noise_in(row),
        epsilon=row.epsilon,
        space_id=row.space_id,
        provenance=provenance_from(row.provenance),
    )


def noise_in(row: Embedding) -> Noise:
    return Noise({"cosine": row.noise_floor}) if row.noise is None else Noise(**row.noise)


def matrix(session: Session, seqs: Sequence[int], compared: Compared = "vector") -> Matrix:
    """(M, D) of one space, rows in the order of `seqs`, which may repeat; (0, 0) of none.

    Of `parts`, all of them in one row: (M, 2 D + RANK K).
    """
    pieces = [rows for _, rows in chunks(session, seqs, compared)]
    return np.concatenate(pieces) if pieces else np.empty((0, 0), dtype=np.float32)


def chunks(
    session: Session, seqs: Sequence[int], compared: Compared = "vector"
) -> Iterator[tuple[list[int], Matrix]]:
    """The same in pieces, each with its seqs, so that memory stays bounded."""
    arrays = (EmbeddingArrays.vector,) if compared == "vector" else _PARTS
    for start in range(0, len(seqs), _CHUNK_ROWS):
        wanted = list(seqs[start : start + _CHUNK_ROWS])
        query = select(EmbeddingArrays.embedding_seq, *arrays).where(
            EmbeddingArrays.embedding_seq.in_(wanted)
        )
        found = {seq: _from_bytes(b"".join(data)) for seq, *data in session.execute(query)}
        for seq in wanted:
            if seq not in found:
                raise _unknown(seq)
        yield wanted, np.stack([found[seq] for seq in wanted])


def newest(session: Session, space_id: str) -> tuple[int, int]:
    """The highest seq of the space's embeddings and of its graves, 0 where there is none.

    Whatever becomes visible later has higher ones.
    """
    of_space, of_graves = (
        select(func.max(table.seq)).where(table.space_id == space_id).scalar_subquery()
        for table in (Embedding, EmbeddingGrave)
    )
    seq, grave = session.execute(select(of_space, of_graves)).one()
    return seq or 0, grave or 0


def added(
    session: Session, space_id: str, after: int, limit: int | None = None
) -> list[tuple[int, str]]:
    """Seq and recipe digest of the next embeddings of the space, in order."""
    query = select(Embedding.seq, Embedding.recipe_digest).where(
        Embedding.space_id == space_id, Embedding.seq > after
    )
    found = session.execute(query.order_by(Embedding.seq).limit(limit))
    return [(seq, digest) for seq, digest in found]


def count(session: Session, space_id: str, after: int = 0) -> int:
    """Of the space's embeddings with higher seqs."""
    of_space = (Embedding.space_id == space_id, Embedding.seq > after)
    return session.scalar(select(func.count()).where(*of_space)) or 0


def which(session: Session, seqs: Sequence[int]) -> set[int]:
    """Those of the seqs that are there."""
    return set(session.scalars(select(Embedding.seq).where(Embedding.seq.in_(seqs))))


def buried(session: Session, space_id: str, after: int) -> list[int]:
    """Seqs of the embeddings that were deleted after that grave."""
    query = select(EmbeddingGrave.embedding_seq).where(
        EmbeddingGrave.space_id == space_id, EmbeddingGrave.seq > after
    )
    return list(session.scalars(query))


def remove(session: Session, *which: ColumnElement[bool]) -> int:
    """Deletes embeddings, each leaving a grave; how many there were."""
    in_order_of_commits(session)
    gone = session.execute(
        delete(Embedding).where(*which).returning(Embedding.space_id, Embedding.seq)
    ).all()
    session.add_all(EmbeddingGrave(space_id=space_id, embedding_seq=seq) for space_id, seq in gone)
    session.flush()
    return len(gone)


def drop_unused(session: Session, *seqs: int | None) -> int:
    """Deletes those of the embeddings that no task has and that are not the reference library's."""
    asked = [seq for seq in seqs if seq is not None]
    return remove(session, Embedding.seq.in_(asked), *UNUSED) if asked else 0


def sweep(session: Session, limit: int) -> int:
    """The same for any `limit` of them; how many there were."""
    return drop_unused(session, *session.scalars(select(Embedding.seq).where(*UNUSED).limit(limit)))


def forget_graves(session: Session, before: datetime) -> None:
    """Those of before that time: an index that was away for longer compares the whole table.

    The newest of each space stays, which says how far the others are.
    """
    newest_of = select(func.max(EmbeddingGrave.seq)).group_by(EmbeddingGrave.space_id)
    session.execute(
        delete(EmbeddingGrave).where(
            EmbeddingGrave.created_at < before, EmbeddingGrave.seq.not_in(newest_of)
        )
    )


def in_order_of_commits(session: Session) -> None:
    """Until this unit of work ends, nobody else adds or deletes embeddings.

    So seqs become visible in their order, on PostgreSQL too, and a watermark misses none.
    """
    hold(session, "embeddings")


def _unknown(embedding_seq: int) -> NotFound:
    return NotFound(
        "unknown-embedding",
        f"There is no embedding {embedding_seq}.",
        "Read the task again: it was deleted or embedded anew meanwhile.",
    )


def _to_bytes(vector: Vector) -> bytes:
    return vector.astype("<f4").tobytes()


def _from_bytes(data: bytes) -> Vector:
    return np.frombuffer(data, dtype="<f4")
