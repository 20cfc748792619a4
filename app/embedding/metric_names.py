"""The names of the metrics, for those who need no mathematics with them."""

from __future__ import annotations

from typing import Literal

MetricName = Literal[
    "combined",
    "label",
    "discriminant",
    "domain",
    "cosine",
    "jsd",
    "kl",
    "entropy",
    "asymmetric",
    "asymmetric_kl",
]
