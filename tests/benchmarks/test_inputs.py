"""Looks by other probes and input sizes, on the tiny probe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.embedding.probe import load_probe
from benchmarks.embedding_inputs import Look, Looks, figures, paired
from benchmarks.quality import tasks
from benchmarks.quality.tasks import QualitySet
from tests.probes import probe_card


@pytest.fixture(scope="module")
def sets() -> Iterator[tuple[QualitySet, ...]]:
    yield tasks.few_sets()


def test_a_look_is_kept_and_pairs_are_whole(sets: tuple[QualitySet, ...], tmp_path: Path) -> None:
    pairs = paired(sets)
    assert set(pairs) == {"twin_10", "label_twin_10"}
    assert all(a.task == b.task and (a.half, b.half) == ("A", "B") for a, b in pairs["twin_10"])
    one = pairs["twin_10"][0][0]
    probe = load_probe(probe_card(tmp_path), "cpu")
    first = Looks(probe, tmp_path).at(one)
    again = Looks(probe, tmp_path).at(one)
    np.testing.assert_array_equal(first.axes, again.axes)
    assert (first.accuracy, first.told) == (again.accuracy, again.told)
    assert len(list(tmp_path.rglob("*.npz"))) == 1


def test_twins_with_the_same_axes_are_found_and_shuffled_ones_are_not(
    sets: tuple[QualitySet, ...],
) -> None:
    pairs = {"twin_10": paired(sets)["twin_10"]}
    generator = np.random.default_rng(0)
    axes = [generator.normal(size=(4, 30)).astype(np.float32) for _ in pairs["twin_10"]]
    same = {
        s.name: Look(axes[i], 0.9, told=True)
        for i, pair in enumerate(pairs["twin_10"])
        for s in pair
    }
    found = figures(pairs, [same])
    assert (found["twin_10_first"], found["twin_10_mean_rank"]) == (1.0, 0.0)
    assert found["twin_10_told"] == 1.0
    swapped = dict(same)
    for i, (_, b) in enumerate(pairs["twin_10"]):
        swapped[b.name] = Look(axes[i - 1], 0.9, told=i > 0)
    lost = figures(pairs, [swapped])
    assert lost["twin_10_first"] == 0.0
    assert lost["twin_10_told"] < 1.0
    assert figures(pairs, [same, same])["twin_10_first"] == 1.0
