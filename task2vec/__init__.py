"""Clients of a Task2Vec service: which pretrained image model to fine-tune, and at what cost.

    from task2vec import Task2Vec

    with Task2Vec("http://127.0.0.1:8000") as service:
        task = service.embed("pets/")
        best = service.estimates(task).estimates[0]

`AsyncTask2Vec` has the same methods, to be awaited. Whatever goes wrong is a `Task2VecError`.
"""

from app import __version__
from app.api.schemas import (
    AtlasAnswer,
    AuditRow,
    DistancesAnswer,
    EstimateRow,
    EstimatesAnswer,
    EstimatorAnswer,
    FinetuneAnswer,
    IntervalAnswer,
    JobAnswer,
    JobProgress,
    KeyMade,
    KeyRow,
    NeighbourRow,
    NeighboursAnswer,
    OutcomeAnswer,
    OutcomeReport,
    OutcomesImported,
    PlanAnswer,
    PlanStep,
    PredictedImage,
    PredictionAnswer,
    ScoresAnswer,
    ScoresRow,
    SpreadBody,
    TaskAnswer,
    TaskRow,
    TimingReport,
    UsageAnswer,
)
from app.catalogue import CandidateCard, DeviceCard, RecipeCard
from app.client.problems import ProblemAnswered, ServerUnreachable
from app.client.task2vec import AsyncTask2Vec, Task2Vec
from app.embedding.vector import TaskEmbedding
from app.errors import Task2VecError

__all__ = [
    "AsyncTask2Vec",
    "AtlasAnswer",
    "AuditRow",
    "CandidateCard",
    "DeviceCard",
    "DistancesAnswer",
    "EstimateRow",
    "EstimatesAnswer",
    "EstimatorAnswer",
    "FinetuneAnswer",
    "IntervalAnswer",
    "JobAnswer",
    "JobProgress",
    "KeyMade",
    "KeyRow",
    "NeighbourRow",
    "NeighboursAnswer",
    "OutcomeAnswer",
    "OutcomeReport",
    "OutcomesImported",
    "PlanAnswer",
    "PlanStep",
    "PredictedImage",
    "PredictionAnswer",
    "ProblemAnswered",
    "RecipeCard",
    "ScoresAnswer",
    "ScoresRow",
    "ServerUnreachable",
    "SpreadBody",
    "Task2Vec",
    "Task2VecError",
    "TaskAnswer",
    "TaskEmbedding",
    "TaskRow",
    "TimingReport",
    "UsageAnswer",
    "__version__",
]
