"""The tables. Times are UTC; public ids are random, `seq` orders rows and pages through them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from app.scopes import Scope

PUBLIC = "public"  # the tenant of what ships with the service: everyone reads it, nobody changes it


def new_id() -> str:
    return uuid.uuid4().hex


def now() -> datetime:
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """SQLite forgets time zones; every time here is UTC, and says so when it comes back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


# SQLite counts up by itself only in an INTEGER primary key.
Sequence = BigInteger().with_variant(Integer, "sqlite")


_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=_NAMES)


class PostgresqlBase(DeclarativeBase):
    """Of tables that SQLite has not."""

    metadata = MetaData(naming_convention=_NAMES)


class Embedding(Base):
    """A task embedding; tasks of one tenant with the same bytes share it."""

    __tablename__ = "embeddings"
    __table_args__ = (
        UniqueConstraint("tenant", "recipe_digest"),
        Index(None, "space_id", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    tenant: Mapped[str] = mapped_column(String(100))
    recipe_digest: Mapped[str] = mapped_column(String(64))  # of all that decides the numbers
    space_id: Mapped[str] = mapped_column(String(64))
    complexity: Mapped[float] = mapped_column(Float)
    noise_floor: Mapped[float] = mapped_column(Float)
    noise: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # none in embeddings of before
    epsilon: Mapped[float] = mapped_column(Float)
    provenance: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)

    arrays: Mapped[EmbeddingArrays] = relationship(
        cascade="all, delete-orphan", passive_deletes=True
    )


class EmbeddingArrays(Base):
    """The arrays of an embedding, float32 little-endian: apart, so that whoever reads its figures
    does not go through a quarter of a megabyte to get at them."""

    __tablename__ = "embedding_arrays"

    embedding_seq: Mapped[int] = mapped_column(
        ForeignKey("embeddings.seq", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    domain: Mapped[bytes] = mapped_column(LargeBinary)
    # (RANK, K); empty in embeddings of before there were any.
    discriminants: Mapped[bytes] = mapped_column(LargeBinary)
    draw_error: Mapped[bytes] = mapped_column(LargeBinary)
    sampling_error: Mapped[bytes] = mapped_column(LargeBinary)


class ClassStrip(Base):
    """A few small images of a class side by side, of the set that an embedding is of; WebP."""

    __tablename__ = "class_strips"

    embedding_seq: Mapped[int] = mapped_column(
        ForeignKey("embeddings.seq", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    label: Mapped[str] = mapped_column(Text)
    picture: Mapped[bytes] = mapped_column(LargeBinary)


class EmbeddingGrave(Base):
    """An embedding that was deleted: search indexes that hold it learn of it here."""

    __tablename__ = "embedding_graves"
    __table_args__ = (
        Index(None, "space_id", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    space_id: Mapped[str] = mapped_column(String(64))
    embedding_seq: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Task(Base):
    __tablename__ = "tasks"
    __table_args__ = (
        Index(None, "tenant", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(100), unique=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(200))
    label_kind: Mapped[str] = mapped_column(String(20))  # as found; until then as asked
    label_kind_asked: Mapped[str] = mapped_column(String(20))  # of every version of the task
    probe: Mapped[str] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(
        String(20)
    )  # queued embedding ready refused failed cancelled
    version: Mapped[int] = mapped_column(Integer, default=1)
    source: Mapped[str | None] = mapped_column(
        Text
    )  # the URI it came from, or a reference's origin
    licence: Mapped[str | None] = mapped_column(String(200))
    n_images: Mapped[int | None] = mapped_column(Integer)
    n_classes: Mapped[int | None] = mapped_column(Integer)
    intake_summary: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    intake_files: Mapped[list[Any] | None] = mapped_column(
        JSON, deferred=True
    )  # one entry per file
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    embedding_seq: Mapped[int | None] = mapped_column(ForeignKey("embeddings.seq"), index=True)
    # In the space that the tenant's tasks are moving to; current once all of them are there.
    next_embedding_seq: Mapped[int | None] = mapped_column(ForeignKey("embeddings.seq"), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, onupdate=now)
    # Set where images are only asked about (POST /neighbours): never listed, nobody's neighbour,
    # deleted after this time.
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)

    embedding: Mapped[Embedding | None] = relationship(foreign_keys=[embedding_seq])
    archives: Mapped[list[Archive]] = relationship(
        cascade="all, delete-orphan", order_by="Archive.position", lazy="selectin"
    )
    tags: Mapped[list[TaskTag]] = relationship(
        cascade="all, delete-orphan", order_by="TaskTag.tag", lazy="selectin"
    )


class Archive(Base):
    """One uploaded archive of a task; `POST /tasks/{id}/images` adds another. Bytes: blob store."""

    __tablename__ = "archives"

    task_seq: Mapped[int] = mapped_column(
        ForeignKey("tasks.seq", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class Upload(Base):
    """An archive that a client puts into the blob store itself, part by part, to become a task."""

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "tenant", "sha256"), {"sqlite_autoincrement": True})

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(100))
    asked: Mapped[dict[str, Any]] = mapped_column(JSON)  # the archive as its client describes it
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    multipart: Mapped[str] = mapped_column(Text)  # what the blob store calls it
    task_id: Mapped[str | None] = mapped_column(String(100))  # of what it became
    job_id: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, index=True)


class TaskTag(Base):
    __tablename__ = "task_tags"

    task_seq: Mapped[int] = mapped_column(
        ForeignKey("tasks.seq", ondelete="CASCADE"), primary_key=True
    )
    tag: Mapped[str] = mapped_column(String(100), primary_key=True, index=True)


class Job(Base):
    """A piece of work for a worker. `token` fences: only the holder of the newest may write."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "tenant", "seq"),
        Index(None, "state", "kind"),
        Index(
            None,
            "handed_over",
            sqlite_where=text("handed_over"),
            postgresql_where=text("handed_over"),
        ),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(100))
    kind: Mapped[str] = mapped_column(String(40))  # embed_task reindex finetune score predict
    probe: Mapped[str | None] = mapped_column(String(100))  # of a reindex, which leaves the task's
    task_seq: Mapped[int] = mapped_column(ForeignKey("tasks.seq", ondelete="CASCADE"), index=True)
    state: Mapped[str] = mapped_column(
        String(20)
    )  # queued running succeeded refused failed cancelled
    phase: Mapped[str] = mapped_column(String(40), default="queued")
    done: Mapped[int] = mapped_column(Integer, default=0)
    total: Mapped[int] = mapped_column(Integer, default=0)
    remaining_seconds: Mapped[float | None] = mapped_column(Float)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    token: Mapped[int] = mapped_column(Integer, default=0)
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)
    traceparent: Mapped[str | None] = mapped_column(String(55))  # of the request that asked for it
    priority: Mapped[int] = mapped_column(Integer, default=1)  # of the tenant's own: 0 goes first
    handed_over: Mapped[bool] = mapped_column(Boolean, default=False)  # to the engine, for a place
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, onupdate=now)

    task: Mapped[Task] = relationship()


class Finetune(Base):
    """A candidate's training on a task: as it was asked for, how far it is, what it gave.

    Cards are kept as they were when it was asked for: a run that is taken up again is the same run.
    """

    __tablename__ = "finetunes"
    __table_args__ = (Index(None, "tenant", "seq"), {"sqlite_autoincrement": True})

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(100))
    task_seq: Mapped[int] = mapped_column(ForeignKey("tasks.seq", ondelete="CASCADE"), index=True)
    job_seq: Mapped[int] = mapped_column(ForeignKey("jobs.seq", ondelete="CASCADE"), unique=True)
    candidate: Mapped[dict[str, Any]] = mapped_column(JSON)
    recipe: Mapped[dict[str, Any]] = mapped_column(JSON)
    device: Mapped[dict[str, Any]] = mapped_column(JSON)
    archives: Mapped[list[str]] = mapped_column(JSON)  # digests of what its images are read from
    asked: Mapped[dict[str, Any]] = mapped_column(JSON)  # seed, limits, trace_every
    warnings: Mapped[list[str]] = mapped_column(JSON)
    forecast: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # before anything was trained
    curve: Mapped[list[Any]] = mapped_column(JSON, default=list)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    outcome_id: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)

    task: Mapped[Task] = relationship()
    job: Mapped[Job] = relationship()
    files: Mapped[list[FinetuneFile]] = relationship(
        cascade="all, delete-orphan", passive_deletes=True, lazy="selectin"
    )


class FinetuneFile(Base):
    """A file that a run left, or the checkpoint that it can go on from. Bytes: blob store."""

    __tablename__ = "finetune_files"

    finetune_seq: Mapped[int] = mapped_column(
        ForeignKey("finetunes.seq", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    name: Mapped[str] = mapped_column(String(20), primary_key=True)  # model config card checkpoint
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class CandidateScore(Base):
    """What a candidate's features tell of a task's images, before it is trained on them.

    `scores` and `problem` are null until the job comes to it; then one of them tells.
    """

    __tablename__ = "candidate_scores"
    __table_args__ = (UniqueConstraint("task_seq", "candidate"), {"sqlite_autoincrement": True})

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    task_seq: Mapped[int] = mapped_column(ForeignKey("tasks.seq", ondelete="CASCADE"))
    job_seq: Mapped[int] = mapped_column(ForeignKey("jobs.seq", ondelete="CASCADE"), index=True)
    candidate: Mapped[str] = mapped_column(String(100))
    card: Mapped[dict[str, Any]] = mapped_column(JSON)  # as it was when it was asked about
    archives: Mapped[list[str]] = mapped_column(JSON)  # digests of what the images are read from
    n_images: Mapped[int | None] = mapped_column(Integer)
    scores: Mapped[dict[str, float] | None] = mapped_column(JSON)
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)

    task: Mapped[Task] = relationship()
    job: Mapped[Job] = relationship()


class Prediction(Base):
    """Images that a run's model is to classify, and what it made of them.

    The images (a blob) are needed until the job ends; the answer goes a while after that.

    `result`  {label_kind, classes, images: {name: row}, refused: {name: reason}} and, of all rows,
              what `predictions.packed` makes of them; files with the same bytes share a row
    """

    __tablename__ = "predictions"
    __table_args__ = ({"sqlite_autoincrement": True},)

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(100))
    finetune_seq: Mapped[int] = mapped_column(
        ForeignKey("finetunes.seq", ondelete="CASCADE"), index=True
    )
    job_seq: Mapped[int] = mapped_column(ForeignKey("jobs.seq", ondelete="CASCADE"), unique=True)
    name: Mapped[str] = mapped_column(String(200))  # of the file that was sent
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    k: Mapped[int] = mapped_column(Integer)
    threshold: Mapped[float] = mapped_column(Float)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON, deferred=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)

    finetune: Mapped[Finetune] = relationship()
    job: Mapped[Job] = relationship()


class Callback(Base):
    """A call to be made when a job ends; `id` tells the receiver that it heard of it before."""

    __tablename__ = "callbacks"
    __table_args__ = ({"sqlite_autoincrement": True},)

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(100))
    job_seq: Mapped[int] = mapped_column(ForeignKey("jobs.seq", ondelete="CASCADE"), unique=True)
    url: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(20), index=True)  # pending delivered failed
    attempts: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # once the job has ended: at once
    problem: Mapped[str | None] = mapped_column(Text)  # of the last try
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)

    job: Mapped[Job] = relationship()


class TenantSettings(Base):
    """What a tenant has set; none where it never did."""

    __tablename__ = "tenants"

    tenant: Mapped[str] = mapped_column(String(100), primary_key=True)
    callback_secret: Mapped[str | None] = mapped_column(String(100))
    share_outcomes: Mapped[bool] = mapped_column(Boolean, default=False)


class Outbox(Base):
    """Jobs accepted but not yet handed to the durable engine; written in the accepting commit.

    Here they wait for their turn.
    """

    __tablename__ = "outbox"
    __table_args__ = ({"sqlite_autoincrement": True},)

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(String(32), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Turn(Base):
    """When a tenant last had its turn in a queue: the smaller `taken`, the longer ago."""

    __tablename__ = "turns"

    queue: Mapped[str] = mapped_column(String(20), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(100), primary_key=True)
    taken: Mapped[int] = mapped_column(BigInteger)


class IdempotencyKey(Base):
    """What a POST with an Idempotency-Key answered, so that its repetition answers the same."""

    __tablename__ = "idempotency_keys"

    tenant: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))  # of method, path and body
    status: Mapped[int] = mapped_column(Integer)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    location: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, index=True)


class ApiKey(Base):
    """An API key: its SHA-256 is kept, and how it begins."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(200))
    scope: Mapped[Scope] = mapped_column(String(10))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    prefix: Mapped[str] = mapped_column(String(20))  # "" of keys of before, until they are used
    replaced_by: Mapped[str | None] = mapped_column(String(32))  # the key that rotation made
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # to the minute
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Login(Base):
    """A browser to which a key was shown: the SHA-256 of what its cookie holds."""

    __tablename__ = "logins"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    ends_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class AuditEvent(Base):
    """What somebody changed, or was refused; in the commit of the change where there is one."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index(None, "tenant", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, index=True)
    tenant: Mapped[str | None] = mapped_column(String(100))  # none of a stranger
    actor: Mapped[str | None] = mapped_column(String(200))  # key:ID, oidc:SUBJECT, local, shell
    action: Mapped[str] = mapped_column(String(200))  # method and route, or a command
    object_id: Mapped[str | None] = mapped_column(String(200))
    address: Mapped[str | None] = mapped_column(String(200))
    status: Mapped[int] = mapped_column(Integer)
    problem: Mapped[str | None] = mapped_column(String(100))  # why it was refused


class CatalogueCard(Base):
    """A card of the catalogue: shipped ones belong to PUBLIC and are laid anew at every start."""

    __tablename__ = "cards"

    tenant: Mapped[str] = mapped_column(String(100), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)  # candidate device recipe probe
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Outcome(Base):
    """One fine-tuning run as it really went. `digest` is of everything told of it: the same row
    again is the same run. Quarantined ones are kept, and nothing is learnt from them."""

    __tablename__ = "outcomes"
    __table_args__ = (
        UniqueConstraint("tenant", "digest"),
        Index(None, "tenant", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(100))
    digest: Mapped[str] = mapped_column(String(64))
    task: Mapped[str] = mapped_column(String(200))  # an id; an imported one may be any name
    model: Mapped[str] = mapped_column(String(100))  # the candidate's name
    recipe: Mapped[str] = mapped_column(String(100))  # as device and stop_reason: "" if not told
    device: Mapped[str] = mapped_column(String(100))
    metric: Mapped[str] = mapped_column(String(100))
    value: Mapped[float | None] = mapped_column(Float)  # none where the run failed
    stop_reason: Mapped[str] = mapped_column(String(20))
    numbers: Mapped[dict[str, float]] = mapped_column(JSON)  # set-up, cost and scores, by column
    # What the service would have said of the run when it was reported.
    forecast: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    quarantine: Mapped[str | None] = mapped_column(Text)  # why, until it is released
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class EstimatorVersion(Base):
    """An estimator as a worker fitted and judged it; the newest published one serves.

    `newest`, `n_quarantined`  the state of the tenant's outcomes that it was fitted to
    """

    __tablename__ = "estimators"
    __table_args__ = (UniqueConstraint("tenant", "version"), {"sqlite_autoincrement": True})

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    tenant: Mapped[str] = mapped_column(String(100))
    version: Mapped[int] = mapped_column(Integer)  # 1, 2, ... of the tenant's
    published: Mapped[bool] = mapped_column(Boolean)
    reason: Mapped[str] = mapped_column(Text)  # why it was published, or was not
    newest: Mapped[int] = mapped_column(BigInteger)
    n_quarantined: Mapped[int] = mapped_column(Integer)
    n_outcomes: Mapped[int] = mapped_column(Integer)
    n_tasks: Mapped[int] = mapped_column(Integer)
    n_candidates: Mapped[int] = mapped_column(Integer)
    calibration: Mapped[dict[str, Any]] = mapped_column(JSON)
    report: Mapped[dict[str, Any]] = mapped_column(JSON)
    # What it was fitted to, as Parquet; of versions that cannot serve any more, nothing.
    evidence: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    code_version: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class CandidateTiming(Base):
    """What steps of a candidate took on a device, as they were timed last."""

    __tablename__ = "timings"

    tenant: Mapped[str] = mapped_column(String(100), primary_key=True)
    device: Mapped[str] = mapped_column(String(100), primary_key=True)
    candidate: Mapped[str] = mapped_column(String(100), primary_key=True)
    batch_size: Mapped[int] = mapped_column(Integer)
    # low, typical, high of a batch
    step_seconds: Mapped[list[float]] = mapped_column(JSON)
    forward_seconds: Mapped[list[float]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class ReferenceLibrary(Base):
    """Which reference library is loaded; its tasks belong to PUBLIC."""

    __tablename__ = "reference_libraries"

    probe: Mapped[str] = mapped_column(String(100), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))  # of the library's file
    space_id: Mapped[str] = mapped_column(String(64))
    trivial: Mapped[float] = mapped_column(Float)  # t0 of the asymmetric distance in its space
    # Of label and domain parts, (2, D) float32 little-endian; a library of old has none.
    population: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)


class SpaceLayers(Base):
    """How the filters of a space go together: [{name, start, stop}] in the order of travel."""

    __tablename__ = "space_layers"

    space_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    layers: Mapped[list[Any]] = mapped_column(JSON)


class Atlas(Base):
    """The map of what a tenant sees of a space; PUBLIC's is everyone's who has none."""

    __tablename__ = "atlases"
    __table_args__ = (UniqueConstraint("tenant", "space_id"), {"sqlite_autoincrement": True})

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    tenant: Mapped[str] = mapped_column(String(100))
    space_id: Mapped[str] = mapped_column(String(64))
    signature: Mapped[str] = mapped_column(String(64))  # of the tasks and embeddings on it
    n_tasks: Mapped[int] = mapped_column(Integer)
    n_settled: Mapped[int] = mapped_column(Integer)  # that there were when all last found a place
    clusters: Mapped[list[Any]] = mapped_column(JSON)
    dendrogram: Mapped[list[Any]] = mapped_column(JSON)
    trustworthiness: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class AtlasPoint(Base):
    """A task's place on an atlas; `complexity` of the embedding it was placed by."""

    __tablename__ = "atlas_points"

    atlas_seq: Mapped[int] = mapped_column(
        ForeignKey("atlases.seq", ondelete="CASCADE"), primary_key=True
    )
    task_seq: Mapped[int] = mapped_column(
        ForeignKey("tasks.seq", ondelete="CASCADE"), primary_key=True, index=True
    )
    embedding_seq: Mapped[int] = mapped_column(BigInteger)
    x: Mapped[float] = mapped_column(Float)
    y: Mapped[float] = mapped_column(Float)
    cluster: Mapped[int | None] = mapped_column(Integer)
    complexity: Mapped[float] = mapped_column(Float)


class Worker(Base):
    """A worker process that is up; its heartbeat tells readiness, its space what it embeds into.

    Which weights it has is not known until it has looked.
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    probe: Mapped[str] = mapped_column(String(100))
    space_id: Mapped[str] = mapped_column(String(64))
    device: Mapped[str] = mapped_column(String(100))
    code_version: Mapped[str] = mapped_column(String(40))
    weights: Mapped[list[str] | None] = mapped_column(JSON)  # `weights_key`s of those it has
    started_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    heartbeat_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Tally(Base):
    """How many values of a measure lie in a bucket, and their sum: `store/tallies.py`."""

    __tablename__ = "tallies"

    measure: Mapped[str] = mapped_column(String(20), primary_key=True)
    kind: Mapped[str] = mapped_column(String(40), primary_key=True)  # of job
    detail: Mapped[str] = mapped_column(String(40), primary_key=True)
    bucket: Mapped[int] = mapped_column(Integer, primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Float)


class SearchIndex(PostgresqlBase):
    """An index of a space's embeddings in the database: `store/points.py`.

    `key`      of logs, or of parts centred on a population
    `fitted`   embeddings that there were when its axes were found
    `axes`     and the population, as NumPy keeps arrays; an index of logs needs none
    """

    __tablename__ = "search_indexes"
    __table_args__ = (Index(None, "space_id", "key"),)

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True, default=new_id)
    space_id: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(40))
    epsilon: Mapped[float] = mapped_column(Float)
    fitted: Mapped[int] = mapped_column(BigInteger)
    axes: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # and since then kept so
