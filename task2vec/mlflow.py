"""What was estimated, and what came of it, as tags and metrics of MLflow's active run.

MLflow is yours: nothing of this package brings it.
"""

from __future__ import annotations

from collections.abc import Iterator

import mlflow

from app.api.schemas import EstimateRow, IntervalAnswer, OutcomeAnswer

_INTERVALS = ("accuracy", "steps", "seconds", "money_usd", "energy_wh", "memory_mib")
_ENDS = ("low", "typical", "high")


def log_estimate(row: EstimateRow) -> None:
    """`task2vec.estimate.accuracy.typical` and so on, and what they rest on."""
    mlflow.set_tags(
        {
            "task2vec.candidate": row.candidate,
            "task2vec.recipe": row.recipe,
            "task2vec.device": row.device,
            "task2vec.reason": row.reason,
            "task2vec.basis": "; ".join(row.basis),
        }
    )
    found = {name: getattr(row, name) for name in _INTERVALS}
    mlflow.log_metrics(dict(_ends(found)))


def log_outcome(outcome: OutcomeAnswer) -> None:
    """`task2vec.outcome.accuracy` and so on; with a forecast also by how much it was missed
    (`task2vec.miss.accuracy`) and whether its interval held (`task2vec.inside.accuracy`: 1 or 0).
    """
    mlflow.set_tags({"task2vec.task": outcome.task, "task2vec.outcome": outcome.id})
    forecast = outcome.forecast or {}
    metrics: dict[str, float] = {}
    for name, value in [(outcome.metric, outcome.value), *outcome.numbers.items()]:
        if value is None:
            continue
        metrics[f"task2vec.outcome.{name}"] = value
        told = forecast.get("accuracy" if name == outcome.metric else name)
        if isinstance(told, dict):
            metrics[f"task2vec.miss.{name}"] = value - told["typical"]
            metrics[f"task2vec.inside.{name}"] = float(told["low"] <= value <= told["high"])
    mlflow.log_metrics(metrics)


def _ends(intervals: dict[str, IntervalAnswer | None]) -> Iterator[tuple[str, float]]:
    for name, interval in intervals.items():
        if interval is not None:
            for end in _ENDS:
                yield f"task2vec.estimate.{name}.{end}", getattr(interval, end)
