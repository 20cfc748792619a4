"""What goes over the wire: bodies are strict and closed, answers are what other programs read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import numpy as np
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)

from app.catalogue import (
    CARD_NAME,
    DEFAULT_DEVICE,
    DEFAULT_RECIPE,
    CandidateCard,
    DeviceCard,
    ProbeCard,
    RecipeCard,
)
from app.cost.score_names import Score
from app.embedding.dataset import MAX_CLASSES, LabelKind
from app.embedding.metric_names import MetricName
from app.embedding.vector import RANK, TaskEmbedding, Vector
from app.priorities import Priority
from app.scopes import Scope


def _as_share(value: object) -> object:
    if isinstance(value, str):  # of an address
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, (int, float)) and 1 < value <= 100:
        raise ValueError(f"a share from 0 to 1: write {value:g}% as {value / 100:g}")
    return value


Share = Annotated[float, BeforeValidator(_as_share), Field(gt=0, le=1)]

PRINTABLE = r"^[^\x00-\x1f\x7f]*$"

TaskName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=PRINTABLE),
]
Tag = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=PRINTABLE),
]
TaskId = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=PRINTABLE)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
CardRef = Annotated[str, StringConstraints(pattern=CARD_NAME)]
SpaceId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}$")]

LabelKindAsked = Literal["auto", "single_label", "multi_label"]
MetricAsked = Annotated[
    MetricName | None, Field(description="none: the default of the space, which the answer names")
]
TaskStatus = Literal["queued", "embedding", "ready", "refused", "failed", "cancelled"]
JobState = Literal["queued", "running", "succeeded", "refused", "failed", "cancelled"]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


# --- problems


class FieldError(Answer):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457 with a remedy; some problems carry members of their own beside these."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    remedy: str
    errors: list[FieldError] | None = Field(None, description="the first of them")
    more_errors: int | None = Field(None, description="how many `errors` leaves out")


# --- tasks


CallbackUrl = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=PRINTABLE)]


class CallbackAsked(Body):
    callback_url: CallbackUrl | None = Field(
        None, description="is called when the job ends, under a prefix the operator allows"
    )


class CallbackSecret(Answer):
    secret: str | None = Field(
        None,
        description="whsec_ and base64, as Standard Webhooks has it: told once, not where the "
        "answer is a repeated one",
    )


class CallbackAnswer(Answer):
    id: str = Field(description="the webhook-id of every try")
    url: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    problem: str | None = Field(description="of the last try")


class TenantAnswer(Answer):
    share_outcomes: bool = Field(
        description="whether other tenants' estimates may learn from your outcomes"
    )


class TenantChanges(Body):
    share_outcomes: bool


class TaskMetadata(CallbackAsked):
    """The `metadata` part beside an `archive`. No name: the archive's file name stands in."""

    name: TaskName | None = None
    tags: list[Tag] = Field([], max_length=50)
    label_kind: LabelKindAsked = "auto"
    probe: CardRef | None = Field(None, description="none: the probe the service is set to")
    priority: Priority | None = Field(
        None,
        description="among your own jobs; `high` is for small archives. None: `normal`, and `low` "
        "where the archive is large",
    )


class UploadAsked(TaskMetadata):
    """An archive that the client puts into the store itself, with the digests of its parts."""

    filename: Annotated[str, StringConstraints(max_length=1000, pattern=PRINTABLE)] = ""
    size_bytes: int = Field(ge=1, le=5 * 2**40, description="S3 holds no larger object")
    sha256: Sha256
    part_bytes: int = Field(
        ge=5 * 2**20, le=5 * 2**30, description="of every part but the last, which may be smaller"
    )
    parts: list[Sha256] = Field(
        min_length=1, max_length=10_000, description="SHA-256 of each, in order"
    )


class PartAddress(Answer):
    number: int = Field(description="from 1")
    url: str = Field(description="where it is PUT")
    headers: dict[str, str] = Field(description="to be sent along")


class UploadAnswer(Answer):
    id: str
    size_bytes: int
    sha256: str
    part_bytes: int
    missing: list[PartAddress] = Field(description="the parts that the store does not have")
    task_id: str | None = Field(description="once it is completed")
    job_id: str | None
    created_at: datetime
    expires_at: datetime = Field(description="what is not completed by then is forgotten")
    links: dict[str, str]


class TaskFromSource(TaskMetadata):
    source: Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=PRINTABLE)] = (
        Field(description="URI of an archive, under one of the prefixes the operator allows")
    )


class NoMetadata(Body):
    """The `metadata` part beside more images of a task: there is nothing to say."""


class TaskChanges(Body):
    name: TaskName | None = None
    tags: list[Tag] | None = Field(None, max_length=50, description="replaces all tags")


class Accepted(Answer):
    id: str = Field(description="the task")
    job_id: str


class Counts(Answer):
    images: int | None
    classes: int | None


class TaskRow(Answer):
    id: str
    name: str
    tags: list[str]
    status: TaskStatus
    label_kind: str = Field(description="as found; as asked until the intake has found it")
    probe: str
    version: int
    library: bool = Field(description="part of the reference library that ships with the service")
    source: str | None
    licence: str | None
    counts: Counts
    space_id: str | None
    complexity: float | None
    noise_floor: float | None
    provenance: dict[str, Any] | None
    problem: dict[str, Any] | None
    job_id: str | None = Field(description="the newest job")
    created_at: datetime
    updated_at: datetime
    links: dict[str, str]


class AmongLibrary(Answer):
    """The tasks of the reference library in the same space."""

    tasks: int
    easier: int = Field(description="how many of them have a lower complexity")


class TaskAnswer(TaskRow):
    among_library: AmongLibrary | None = Field(description="none before it is embedded")
    intake: dict[str, Any] | None = Field(description="summary; every file: links.intake")


class TaskPage(Answer):
    items: list[TaskRow]
    next_cursor: str | None


class IntakeFile(Answer):
    path: str
    status: Literal["used", "skipped"]
    label: str | None
    reason: str | None


class IntakeAnswer(Answer):
    id: str
    summary: dict[str, Any]
    files: list[IntakeFile]


class ClassRow(Answer):
    label: str
    images: int = Field(description="that are used")
    strip: str | None = Field(
        description="address of a picture of a few of its images; the largest classes have one"
    )


class ClassesAnswer(Answer):
    id: str
    classes: list[ClassRow]


class EmbeddingAnswer(Answer):
    id: str
    space_id: str
    dimension: int
    epsilon: float
    complexity: float
    noise_floor: float
    noise: dict[str, Any] = Field(
        description="`floors` by metric on vectors; of `label` and `domain` the squared length "
        "that draws add, in log2 units"
    )
    vector: list[float]
    domain: list[float]
    discriminants: list[list[float]]
    label: list[float]
    draw_error: list[float]
    sampling_error: list[float]
    provenance: dict[str, Any]

    @classmethod
    def of(cls, task_id: str, embedding: TaskEmbedding) -> EmbeddingAnswer:
        return cls(
            id=task_id,
            space_id=embedding.space_id,
            dimension=len(embedding.vector),
            epsilon=embedding.epsilon,
            complexity=embedding.complexity,
            noise_floor=embedding.noise_floor,
            noise=asdict(embedding.noise),
            vector=embedding.vector.tolist(),
            domain=embedding.domain.tolist(),
            discriminants=embedding.discriminants.tolist(),
            label=embedding.label.tolist(),
            draw_error=embedding.draw_error.tolist(),
            sampling_error=embedding.sampling_error.tolist(),
            provenance=asdict(embedding.provenance),
        )


# --- neighbours and distances


MAX_ENTRIES = 1_000_000
_MAX_ENTRY = 3e38  # float32 holds it


def _numbers(sent: Any, least: float) -> Vector:
    """Checked as one array: a report on each of a million wrong numbers helps nobody."""
    if not isinstance(sent, list) or not 1 <= len(sent) <= MAX_ENTRIES:
        raise ValueError(f"not a list of 1 to {MAX_ENTRIES} numbers")
    if not set(map(type, sent)) <= {int, float}:
        raise ValueError("holds something that is no number")
    try:
        entries = np.array(sent, dtype=np.float64)
    except OverflowError as error:
        raise ValueError(f"holds a number above {_MAX_ENTRY:g}") from error
    if not ((entries >= least) & (entries <= _MAX_ENTRY)).all():
        raise ValueError(f"holds a number that is not between {least:g} and {_MAX_ENTRY:g}")
    return entries.astype(np.float32)


def _entries(sent: Any) -> Vector:
    return _numbers(sent, 0.0)


def _axes(sent: Any) -> Vector:
    if not isinstance(sent, list) or len(sent) != RANK:
        raise ValueError(f"not a list of {RANK} rows")
    rows = [_numbers(row, -_MAX_ENTRY) for row in sent]
    if len({len(row) for row in rows}) > 1:
        raise ValueError("its rows differ in length")
    return np.stack(rows)


def _numbers_schema(least: float) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "number", "minimum": least, "maximum": _MAX_ENTRY},
        "minItems": 1,
        "maxItems": MAX_ENTRIES,
    }


def _to_list(array: Vector) -> Any:
    return array.tolist()


Entries = Annotated[
    np.ndarray,
    PlainValidator(_entries),
    PlainSerializer(_to_list),
    WithJsonSchema(_numbers_schema(0)),
]
Axes = Annotated[
    np.ndarray,
    PlainValidator(_axes),
    PlainSerializer(_to_list),
    WithJsonSchema(
        {
            "type": "array",
            "items": _numbers_schema(-_MAX_ENTRY),
            "minItems": RANK,
            "maxItems": RANK,
        }
    ),
]


class Among(Body):
    """Which tasks may be neighbours."""

    label_kind: LabelKind | None = None
    min_classes: int | None = Field(None, ge=2, le=MAX_CLASSES)
    max_classes: int | None = Field(None, ge=2, le=MAX_CLASSES)


class VectorQuery(Body):
    """A query by numbers, as `GET /tasks/{id}/embedding` gives them.

    `combined`, which most spaces have as their default, compares all three arrays.
    """

    vector: Entries
    domain: Entries | None = Field(None, description="for a metric that compares parts")
    discriminants: Axes | None = Field(None, description="for a metric that compares parts")
    space_id: SpaceId
    k: int = Field(10, ge=1, le=1000)
    metric: MetricAsked = None
    tag: Tag | None = None
    among: Among = Among()


class ArchiveQuery(Body):
    """The `metadata` part beside an `archive` that is asked about and not kept."""

    label_kind: LabelKindAsked = "auto"
    probe: CardRef | None = None
    k: int = Field(10, ge=1, le=1000)
    metric: MetricAsked = None
    tag: Tag | None = None
    among: Among = Among()


class NeighbourRow(Answer):
    rank: int
    id: str
    name: str
    tags: list[str]
    distance: float
    noise_floor: float | None = Field(
        description="the distance that fresh draws alone would show: what lies below it tells "
        "nothing; none where the metric has no floor"
    )
    distinguishable: bool | None = Field(
        description="whether the next in rank is farther by more than the noise floor; none where "
        "there is no next or no floor"
    )
    images: int | None
    classes: int | None
    complexity: float | None
    library: bool
    source: str | None
    licence: str | None


class NeighboursAnswer(Answer):
    task: str | None = Field(description="none where the query was a vector")
    space_id: str
    metric: MetricName
    exact: bool = Field(description="every task was compared, not only what an index proposed")
    unindexed: int = Field(description="tasks left out, as the index is still taking them in")
    neighbours: list[NeighbourRow]


class QueryAccepted(Answer):
    job_id: str
    links: dict[str, str]


class DistancesQuery(Body):
    tasks: list[TaskId] = Field(min_length=1, max_length=1000)
    metric: MetricAsked = None


class DistancesAnswer(Answer):
    metric: MetricName
    symmetric: bool
    space_id: str
    tasks: list[str]
    distances: list[list[float]] = Field(
        description="row: source task, column: target task, in the order asked"
    )


# --- atlas


class AtlasRow(Answer):
    id: str
    name: str
    x: float
    y: float
    cluster: int | None = Field(description="none: in no cluster")
    complexity: float
    tags: list[str]
    classes: int | None
    images: int | None
    library: bool


class AtlasCluster(Answer):
    number: int
    name: str = Field(description="the tags that tell it from others")
    tasks: int
    position: tuple[float, float]
    shares: list[tuple[str, float]] = Field(
        description="share of its tasks that has each tag of its name"
    )


class Join(Answer):
    """Clusters, or what earlier joins made of them: join i makes number `len(clusters)` + i."""

    first: int
    second: int
    distance: float


class AtlasAnswer(Answer):
    space_id: str
    drawn_at: datetime
    tasks: int = Field(description="on the whole map")
    trustworthiness: float | None = Field(
        description="how far near on the map is near among embeddings: 1 at best, 0.5 by chance"
    )
    clusters: list[AtlasCluster]
    dendrogram: list[Join]
    items: list[AtlasRow]
    next_cursor: str | None


# --- estimates


class IntervalAnswer(Answer):
    low: float
    typical: float
    high: float
    kind: str = Field(description="what the range means: exact, uncalibrated_range, ...")


class EstimateRow(Answer):
    rank: int
    candidate: str
    family: str
    parameters: int
    recipe: str
    device: str
    accuracy: IntervalAnswer | None
    steps: IntervalAnswer
    seconds: IntervalAnswer
    money_usd: IntervalAnswer
    energy_wh: IntervalAnswer
    memory_mib: IntervalAnswer
    inference_seconds: IntervalAnswer = Field(
        description="of the network on one image, alone in its batch"
    )
    fits: bool = Field(description="into the device's memory")
    fitting_batch_size: int = Field(description="the largest that does; 0: none")
    top1_percent: float | None
    difficulty: float | None = Field(description="asymmetric distance from the source task")
    ridge_accuracy: float | None = Field(
        description="of a simple classifier on its features, where these were looked at"
    )
    source_task: str | None
    evidence: str = Field(description="of strength, by which the row has its rank")
    frontier: bool = Field(description="no other row that fits is both cheaper and as strong")
    reason: str
    basis: list[str]
    calibrated: bool = Field(description="the interval of seconds")
    timed: bool = Field(description="seconds rest on steps timed on the device")
    weights_here: bool | None = Field(
        description="whether a worker has its weights, else they are fetched; null: none is up"
    )


class EstimatesAnswer(Answer):
    task: str
    device: str
    recipe: str
    estimates: list[EstimateRow]
    says: str | None = Field(
        None, description="where no candidate stays within the limits, what the cheapest would take"
    )


class PlanStep(Answer):
    candidate: str
    weights_here: bool | None = Field(description="whether a worker has its weights")
    accuracy: IntervalAnswer
    seconds: IntervalAnswer
    money_usd: IntervalAnswer
    probability_best: float = Field(description="that of all candidates this one reaches most")
    probability_target: float | None = Field(description="that this one alone reaches the target")
    expected_accuracy: float = Field(description="of the best one tried by now")
    expected_regret_points: float = Field(
        description="by which the best one tried by now is expected to miss the best of all"
    )
    probability_target_by_now: float | None
    seconds_by_now: float = Field(description="typical, of all tries so far; the next likewise")
    money_usd_by_now: float


class PlanAnswer(Answer):
    task: str
    device: str
    recipe: str
    target: float | None
    steps: list[PlanStep] = Field(description="in the order to try them")
    tried: dict[str, float] = Field(description="what candidates reached on this task")
    best_so_far: float | None
    reachable: float | None = Field(description="chance that any candidate reaches the target")
    verdict: str = Field(description="no_target, likely, doubtful, out_of_reach or unknown")
    says: str
    unknown: int = Field(description="candidates that no outcome tells the accuracy of")
    calibrated: bool = Field(description="whether chances are calibrated on other tasks")


# --- catalogue


class ProbeAnswer(ProbeCard):
    pinned: bool = Field(description="whether other weights than the card's would be refused")


CardT = TypeVar("CardT", CandidateCard, DeviceCard, RecipeCard, ProbeAnswer)


class CardPage(Answer, Generic[CardT]):
    items: list[CardT]


class SpreadBody(Body):
    low: float = Field(gt=0, le=1e6, description="10th percentile")
    typical: float = Field(gt=0, le=1e6, description="mean")
    high: float = Field(gt=0, le=1e6, description="90th percentile, no less than the mean")


class TimingReport(Body):
    """What batches of a candidate took on a device; `task2vec time` makes and sends one."""

    device: CardRef
    candidate: CardRef
    batch_size: int = Field(ge=1, le=1_000_000)
    step_seconds: SpreadBody = Field(description="a training step with every weight trained")
    forward_seconds: SpreadBody = Field(description="a forward pass without gradients")


class TimingAnswer(TimingReport):
    created_at: datetime


class TimingPage(Answer):
    items: list[TimingAnswer]


# --- jobs


class JobAnswer(Answer):
    id: str
    kind: str
    task_id: str
    state: JobState
    priority: Priority
    phase: str
    done: int
    total: int
    remaining_seconds: float | None
    attempts: int
    cancel_requested: bool
    problem: dict[str, Any] | None
    result: NeighboursAnswer | None = Field(
        None, description="of a query by archive, once it has succeeded"
    )
    callback: CallbackAnswer | None = Field(None, description="in an answer of one job alone")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str]


# --- usage


class QuotaAnswer(Answer):
    used: int
    limit: int | None


class RateAnswer(Answer):
    limit: int | None
    remaining: int | None = Field(description="requests that this process still takes now")
    reset_seconds: int | None = Field(description="until it takes more")


class UsageAnswer(Answer):
    tasks: dict[TaskStatus, int] = Field(description="how many of each status")
    quotas: dict[Literal["stored_bytes", "tasks", "queued_jobs"], QuotaAnswer]
    requests_per_minute: dict[Literal["reads", "writes", "uploads"], RateAnswer]


# --- what candidates' features tell


class ScoresAsked(CallbackAsked):
    candidates: list[CardRef] | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="all whose weights are on the worker already, without it",
    )


class ScoresAccepted(Answer):
    job_id: str | None = Field(description="null where all is told already, or soon will be")
    candidates: list[str]


class ScoresRow(Answer):
    """Scores as the reference explains them; higher for the better."""

    candidate: str
    state: Literal["pending", "scored", "failed", "cancelled"]
    n_images: int | None = Field(description="that were looked at")
    scores: dict[Score, float] | None
    problem: dict[str, Any] | None = Field(description="why there are none")
    job_id: str


class ScoresAnswer(Answer):
    task: str
    scores: list[ScoresRow]


# --- fine-tuning


class FinetuneAsked(CallbackAsked):
    """A candidate, trained on the task's images by a worker."""

    candidate: CardRef
    recipe: CardRef = DEFAULT_RECIPE
    device: CardRef = Field(
        DEFAULT_DEVICE, description="what the worker runs on: its price and precision"
    )
    target: Share | None = Field(None, description="accuracy on held-out images that is enough")
    patience: int | None = Field(
        None, ge=1, le=100_000, description="epochs without a lower loss on held-out images"
    )
    budget_seconds: float | None = Field(None, gt=0, le=1e9)
    budget_usd: float | None = Field(None, gt=0, le=1e9, description="at the device's price")
    trace_every: int = Field(
        0, ge=0, le=100_000, description="epochs between traces of information; 0: none"
    )
    seed: int = Field(0, ge=0, lt=2**31)


class FinetuneAccepted(Answer):
    id: str
    job_id: str
    warnings: list[str]


class FinetuneAnswer(Answer):
    id: str
    task_id: str
    candidate: str
    recipe: str
    device: str
    asked: dict[str, Any]
    warnings: list[str]
    forecast: dict[str, Any] | None = Field(description="as estimates stood before it was trained")
    state: JobState
    problem: dict[str, Any] | None
    curve: list[dict[str, Any]] = Field(description="the epochs so far")
    result: dict[str, Any] | None = Field(
        description="what it gave and took; verdict: on images that were held out"
    )
    outcome_id: str | None
    job_id: str
    created_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


class CandidateAsked(Body):
    """A run's model as a candidate of one's own."""

    name: CardRef | None = Field(None, description="none: made of the parent's and the run's id")


class FinetunePage(Answer):
    items: list[FinetuneAnswer]
    next_cursor: str | None


# --- predictions


class PredictionAsked(CallbackAsked):
    """The `metadata` part beside images that a run's model is to classify."""

    k: int = Field(
        5, ge=1, le=MAX_CLASSES, description="classes listed of an image, of single_label"
    )
    threshold: float = Field(
        0.5, ge=0, lt=1, description="probability above which a class is listed, of multi_label"
    )


class PredictionAccepted(Answer):
    id: str
    job_id: str
    links: dict[str, str]


class ClassProbability(Answer):
    name: str
    probability: float


class PredictedImage(Answer):
    name: str
    class_: str | None = Field(
        validation_alias=AliasChoices("class", "class_"),
        serialization_alias="class",
        description="the most probable; none where no label is above the threshold",
    )
    probability: float | None = Field(description="of that class")
    classes: list[ClassProbability] = Field(
        description="the k most probable, or of multi_label all above the threshold"
    )


class RefusedFile(Answer):
    name: str
    reason: str


class PredictionAnswer(Answer):
    id: str
    finetune_id: str
    state: JobState
    problem: dict[str, Any] | None
    k: int
    threshold: float
    label_kind: LabelKind | None
    probabilities: Literal["softmax", "sigmoid"] | None = Field(
        description="how they come from the network's outputs: nothing calibrates them"
    )
    calibration_error: float | None = Field(
        description="of such probabilities on the images that judged the run (expected)"
    )
    classes: list[str] = Field(description="all that the model tells apart")
    images: list[PredictedImage] = Field(
        description="once it has succeeded, in order of names: those of this page"
    )
    refused: list[RefusedFile] = Field(
        description="files that are no image that can be read, after the last image"
    )
    next_cursor: str | None
    job_id: str
    created_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


# --- outcomes


class OutcomeReport(Body):
    """One fine-tuning run; names and numbers as in the outcome table."""

    task: TaskId
    model: CardRef = Field(description="the candidate's name")
    metric: str = Field(max_length=100)
    value: float | None = Field(None, description="none only where the run failed")
    recipe: CardRef | None = None
    device: CardRef | None = None
    stop_reason: Literal["converged", "cap", "failed", "cancelled"] | None = None
    n_train: float | None = None
    n_held_out: float | None = Field(
        None, description="images that the value was measured on: how far it is to be trusted"
    )
    batch_size: float | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    max_epochs: float | None = None
    epochs: float | None = None
    steps: float | None = None
    seconds: float | None = None
    power_watts: float | None = None
    memory_mib: float | None = None


class OutcomeAnswer(Answer):
    id: str
    task: str
    model: str
    recipe: str
    device: str
    metric: str
    value: float | None
    stop_reason: str
    numbers: dict[str, float] = Field(description="set-up, cost and scores, by column")
    forecast: dict[str, Any] | None = Field(
        description="what the estimates were when it was reported; none without recipe and device"
    )
    quarantine: str | None = Field(description="why nothing is learnt from it")
    created_at: datetime


class RefusedEstimator(Answer):
    version: int
    reason: str
    created_at: datetime


class TrackedAnswer(Answer):
    n_outcomes: int
    n_tasks: int
    coverage: float = Field(description="share of outcomes inside their 90% intervals, over tasks")
    coverage_low: float | None
    coverage_high: float | None
    drifting: bool = Field(description="below 0.9 by more than chance")


class EstimatorAnswer(Answer):
    version: int | None = Field(None, description="none while nothing was fitted yet")
    created_at: datetime | None = None
    service: str | None = Field(None, description="version of the service that fitted it")
    outcomes: int = 0
    tasks: int = 0
    candidates: int = 0
    reason: str | None = Field(None, description="why it serves")
    pending: bool = Field(description="whether outcomes changed since the last fit")
    refused: RefusedEstimator | None = Field(None, description="newer, and worse")
    accuracy: dict[str, Any] | None = Field(
        None, description="each task judged by a fit that never saw it, beside baselines"
    )
    corrections: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="median error of seconds, energy, memory, as counted and as corrected",
    )
    tracked: dict[str, TrackedAnswer] = Field(
        default_factory=dict, description="intervals told before the runs, against the runs"
    )


class OutcomePage(Answer):
    items: list[OutcomeAnswer]
    next_cursor: str | None


class OutcomeChanges(Body):
    quarantined: Literal[False]


class OutcomeRowError(Answer):
    row: int = Field(description="of data, from 1")
    column: str
    message: str


class OutcomesImported(Answer):
    added: int
    already_there: int
    quarantined: int = Field(description="of the added ones")
    refused: int = Field(description="rows with something in them that cannot be")
    errors: list[OutcomeRowError] = Field(description="the first of them")
    more_errors: int = Field(description="how many `errors` leaves out")
    ignored_columns: list[str] = Field(description="what the table has and an outcome has not")


class JobPage(Answer):
    items: list[JobAnswer]
    next_cursor: str | None


class JobProgress(Answer):
    """One server-sent event; the last one carries a final state."""

    state: JobState
    phase: str
    done: int
    total: int
    remaining_seconds: float | None
    problem: dict[str, Any] | None = None


# --- keys and the audit log

_DAYS = 36_500


class KeyAsked(Body):
    name: TaskName = Field(description="who or what will use it")
    scope: Scope = "write"
    expires_in_days: float | None = Field(None, gt=0, le=_DAYS, description="never without it")


class RotationAsked(Body):
    overlap_hours: float = Field(
        24.0, ge=0, le=24 * 366, description="how long the old secret is valid yet"
    )
    expires_in_days: float | None = Field(
        None, gt=0, le=_DAYS, description="without it as long as the old one was made for"
    )


class KeyRow(Answer):
    id: str
    name: str
    scope: Scope
    prefix: str = Field(description="how the secret begins; empty where nobody knows it yet")
    replaced_by: str | None = Field(description="the key that rotation made")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="to the minute")
    revoked_at: datetime | None


class KeyMade(KeyRow):
    secret: str | None = Field(
        None, description="told once: not where the answer is a repeated one"
    )


class KeyPage(Answer):
    items: list[KeyRow]


class AuditRow(Answer):
    at: datetime
    actor: str | None = Field(
        description="`key:ID`, `oidc:SUBJECT`, `local`, or `shell`: the command line's"
    )
    action: str = Field(description="method and route, or the command")
    object_id: str | None
    address: str | None
    status: int
    problem: str | None = Field(description="the code of the refusal; none of what was done")


class AuditPage(Answer):
    items: list[AuditRow]
    next_cursor: str | None


# --- health


class Health(Answer):
    status: Literal["ok"]
    version: str


class Readiness(Answer):
    ready: bool
    reasons: list[str]
