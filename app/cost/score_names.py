"""Names of what a candidate's features tell of a task (scores.py), where no features are."""

from __future__ import annotations

from typing import Literal, get_args

Score = Literal["ridge", "ridge_half", "ridge_quarter", "knn", "logme", "h_score", "lfc", "leep"]
SCORES: tuple[Score, ...] = get_args(Score)

ESTIMATED: tuple[Score, ...] = ("ridge", "logme")
"""Those that the estimator learns from: how high candidates come, and their order. On the shipped
outcomes the others added nothing to these two."""
