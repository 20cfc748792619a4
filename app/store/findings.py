"""What a check found, and whether it was mended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "database", "archive", "model", "embedding", "index", "job", "task", "prediction", "atlas",
    "estimator",
]  # fmt: skip
REPAIR = "Run `task2vec check --repair` while nothing else runs"


@dataclass(frozen=True, slots=True)
class Finding:
    """`remedy`: what there is to do; where it was `mended`, nothing."""

    kind: Kind
    detail: str
    remedy: str
    mended: bool = False


@dataclass(slots=True)
class Report:
    """What was looked at, by kind, and what does not fit."""

    checked: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
