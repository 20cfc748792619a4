from __future__ import annotations

import numpy as np
import pytest

from app.embedding.codes import CodedParts
from app.embedding.distance import METRICS
from app.embedding.parts import Parts, Population

PARTS_METRICS = sorted(name for name, metric in METRICS.items() if metric.compares == "parts")
NARROW = 1e-6


def made_up(count: int, dimensions: int = 40, responses: int = 12) -> Parts:
    generator = np.random.default_rng(4)
    logs = np.exp(generator.normal(-4, 1.5, (count, 2 * dimensions)))
    axes = generator.normal(size=(count, 4 * responses))
    rows = np.concatenate([logs, axes], axis=1).astype(np.float32)
    return Parts.of(rows, 1e-9, Population.of(rows[:, : 2 * dimensions], 1e-9))


def one(parts: Parts, row: int) -> Parts:
    at = slice(row, row + 1)
    return Parts(parts.label[at], parts.domain[at], parts.discriminants[at])


@pytest.mark.parametrize("metric", PARTS_METRICS)
def test_likeness_is_that_of_the_numbers_that_the_codes_stand_for(metric: str) -> None:
    coded, weights = CodedParts.of(made_up(9)), METRICS[metric].weights
    unpacked = Parts(*(array.astype(np.float64) for array in coded.unpacked()))
    some = np.array([7, 2, 2, 8])
    found = coded.alike(one(unpacked, 3), weights, some)
    np.testing.assert_allclose(found, unpacked.alike(unpacked, weights)[3, some], atol=NARROW)


def test_a_task_of_no_information_has_codes_too() -> None:
    parts = made_up(2)
    empty = Parts(0 * parts.label, 0 * parts.domain, 0 * parts.discriminants)
    coded = CodedParts.of(empty)
    weights = METRICS["combined"].weights
    assert not coded.alike(one(parts, 0), weights, np.arange(2)).any()
