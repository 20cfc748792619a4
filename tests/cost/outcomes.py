"""Made-up outcome tables whose truth is known."""

from __future__ import annotations

import numpy as np
import polars as pl

from app.cost.outcome_table import OutcomeTable, parse_outcomes


def runs(
    n_tasks: int = 12, n_models: int = 6, *, noise: float = 0.1, seed: int = 0
) -> pl.DataFrame:
    """Accuracy from a task's level and a model's strength; a score that knows the truth, and one
    that knows nothing; seconds from a task's size and a model's cost, epochs up to a limit."""
    generator = np.random.default_rng(seed)
    levels = generator.normal(1.0, 0.7, n_tasks)
    rows = []
    for task in range(n_tasks):
        size = float(np.exp(generator.normal(0, 1)))
        for model in range(n_models):
            x = levels[task] + 0.4 * (model - n_models / 2) + generator.normal(0, noise)
            epochs = min(round(10 * 1.5**model), 60)
            rows.append(
                {
                    "task": f"task-{task:02}",
                    "model": f"model-{model}",
                    "recipe": "full",
                    "metric": "accuracy",
                    "value": float(1 / (1 + np.exp(-x))),
                    "max_epochs": 60,
                    "epochs": epochs,
                    "seconds": size * (model + 1) * epochs,
                    "stop_reason": "cap" if epochs == 60 else "converged",
                    "score_truth": x,
                    "score_noise": float(generator.normal()),
                }
            )
    return pl.DataFrame(rows)


def table(frame: pl.DataFrame) -> OutcomeTable:
    return parse_outcomes(frame)
