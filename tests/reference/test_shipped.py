"""The libraries that ship: whole, licensed, small, and in the space of the probe that ships."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.catalogue import ProbeCard, get_card
from app.embedding.distance import one_to_many
from app.embedding.probe import load_probe
from app.embedding.vector import Noise
from app.settings import shared_directory

MODELS = shared_directory("models")
OPEN = ("Apache-2.0", "CC-BY-", "CC0-1.0", "MIT", "OFL-1.1", "public domain")


@pytest.mark.parametrize("path", sorted((MODELS / "reference").glob("*.npz")), ids=lambda p: p.stem)
def test_a_shipped_library_lies_in_its_probes_space(path: Path) -> None:
    probe = load_probe(get_card(MODELS, ProbeCard, path.stem))
    with np.load(path, allow_pickle=False) as library:
        assert str(library["space_id"]) == probe.space_id
        assert library["vector"].shape[1] == probe.dim
        assert float(library["epsilon"]) == probe.card.epsilon
        for name in ("population_label", "population_domain"):
            assert library[name].shape == (probe.dim,)
            assert library[name].dtype == np.float32
            assert np.isfinite(library[name]).all()
            assert library[name].std() > 0.1  # log2 units: filters do differ


def test_the_default_library_is_whole_and_every_task_may_be_shipped() -> None:
    path = MODELS / "reference" / "tf_efficientnet_lite0.npz"
    assert path.stat().st_size < 8 * 2**20
    with np.load(path, allow_pickle=False) as library:
        tasks = json.loads(str(library["tasks"]))
        arrays = {name: library[name] for name in library.files}
    assert len(tasks) >= 70
    assert len({task["name"] for task in tasks}) == len(tasks)
    assert {task["label_kind"] for task in tasks} == {"single_label", "multi_label"}
    for task in tasks:
        assert task["source"] and len(task["tags"]) >= 3
        assert all(part.startswith(OPEN) for part in task["licence"].split("; ")), task
        assert 40 <= task["n_images"] <= 200
        assert 2 <= task["n_classes"] <= 26
    for name in ("vector", "domain", "draw_error", "sampling_error"):
        assert arrays[name].shape[0] == len(tasks)
        assert np.isfinite(arrays[name]).all()
    assert arrays["trivial"] > 0
    exact = np.array([task["provenance"]["estimator"] == "exact" for task in tasks])
    noises = [Noise(**noise) for noise in json.loads(str(arrays["noise"]))]
    np.testing.assert_array_equal([noise.floors["cosine"] == 0 for noise in noises], exact)
    assert all(noise.label and noise.domain for noise in noises)


def test_the_same_question_on_other_images_is_mostly_nearest() -> None:
    """Twins: two halves of one source (-a, -b), or one emoji set in two drawing styles."""
    with np.load(MODELS / "reference" / "tf_efficientnet_lite0.npz", allow_pickle=False) as library:
        names = [card["name"] for card in json.loads(str(library["tasks"]))]
        epsilon = float(library["epsilon"])
        logs = library["vector"].astype(np.float64)
    vectors = np.maximum(np.exp2(logs) - epsilon, 0)
    first = []
    for place, name in enumerate(names):
        for ending, other in (("-a", "-b"), ("-b", "-a"), ("noto", "twemoji"), ("twemoji", "noto")):
            twin = f"{name.removesuffix(ending)}{other}"
            if name.endswith(ending) and twin in names:
                distances = one_to_many(vectors[place], vectors, "cosine", epsilon=epsilon)
                distances[place] = np.inf
                first.append(names[int(distances.argmin())] == twin)
    assert len(first) >= 20
    assert np.mean(first) > 0.5
