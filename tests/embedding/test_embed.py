from __future__ import annotations

import hashlib
import io
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from app.catalogue import ProbeCard, get_card
from app.embedding import penalty
from app.embedding.dataset import LabelledImages
from app.embedding.distance import Ranker, get_metric, one_to_one
from app.embedding.embed import Progress, embed_images
from app.embedding.floor import noise_floor
from app.embedding.parts import Population, row_of
from app.embedding.probe import Probe, load_probe
from app.embedding.vector import RANK, Noise, TaskEmbedding
from app.errors import Cancelled, InvalidRequest, Unavailable
from app.settings import shared_directory
from tests.probes import coloured_noise, probe_card


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return load_probe(probe_card(tmp_path_factory.mktemp("probe"), "test_efficientnet"), "cpu")


def relative(found: TaskEmbedding, expected: TaskEmbedding, part: str = "vector") -> float:
    a, b = (getattr(e, part).astype(np.float64) for e in (found, expected))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def pretrained() -> Probe:
    card = get_card(shared_directory("models"), ProbeCard, "tf_efficientnet_lite0")
    return load_probe(card.model_copy(update={"input_size": 64}), "cpu")


def glyphs(multi_label: bool = False, *, n: int = 37, kinds: int = 4) -> LabelledImages:
    """Scikit-learn's digits from 0 on: flat backgrounds, where one rounding moves many positions."""
    digits = load_digits(n_class=kinds)
    scans = (255 - digits.images[:n] * 15.9).astype(np.uint8)
    pixels = np.stack(
        [np.asarray(Image.fromarray(s).resize((64, 64)).convert("RGB")) for s in scans]
    )
    labels = digits.target[:n].astype(np.int64)
    return LabelledImages(
        pixels=pixels,
        labels=np.eye(kinds, dtype=bool)[labels] | (labels[:, None] > 1) if multi_label else labels,
        classes=tuple(map(str, range(kinds))),
        digests=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in pixels),
        label_kind="multi_label" if multi_label else "single_label",
    )


@pytest.mark.parametrize("multi_label", [False, True], ids=["single_label", "multi_label"])
@pytest.mark.parametrize("estimator", ["hutchinson", "mc", "exact"])
def test_batch_size_and_order_change_nothing(
    pretrained: Probe, estimator: str, multi_label: bool
) -> None:
    images = glyphs(multi_label)
    shuffled = np.random.default_rng(5).permutation(37)
    other = replace(
        images,
        pixels=images.pixels[shuffled],
        labels=images.labels[shuffled],
        digests=tuple(images.digests[i] for i in shuffled),
    )
    first = embed_images(images, pretrained, estimator=estimator, batch_size=37)
    second = embed_images(other, pretrained, estimator=estimator, batch_size=16)
    for part in ("vector", "domain", "discriminants", "draw_error", "sampling_error"):
        if first.draw_error.any() or part != "draw_error":
            assert relative(second, first, part) < 1e-5, part
    assert one_to_one(first.vector, second.vector, "cosine", epsilon=1e-12) < 1e-9


def test_a_seed_reproduces_and_others_stay_within_the_draw_error(probe: Probe) -> None:
    """Also where most images have one draw, and only the pilot's say how far draws spread."""
    images = coloured_noise(120, 6)
    exact = embed_images(images, probe, estimator="exact")
    runs = [embed_images(images, probe, tolerance=None, draws=1, seed=seed) for seed in range(8)]
    again = embed_images(images, probe, tolerance=None, draws=1, seed=0)
    np.testing.assert_array_equal(runs[0].vector, again.vector)
    assert not np.array_equal(runs[0].vector, runs[1].vector)
    errors = np.stack([run.vector - exact.vector for run in runs]).astype(np.float64)
    claimed = np.sqrt(np.mean([run.draw_error.astype(np.float64) ** 2 for run in runs], axis=0))
    alive = claimed > 0
    real = np.sqrt((errors**2).mean(axis=0))
    assert 0.7 < np.median(claimed[alive] / real[alive]) < 1.4
    distances = [
        one_to_one(a.vector, b.vector, "cosine", epsilon=exact.epsilon) for a, b in pairwise(runs)
    ]
    assert 0.5 < np.mean(distances) / np.mean([run.noise_floor for run in runs]) < 2.0


@pytest.mark.parametrize("n", [20, 90])
def test_stated_noise_is_what_other_seeds_show(pretrained: Probe, n: int) -> None:
    """Under every metric that has a floor; `n` glyphs of 8 kinds."""
    images = glyphs(n=n, kinds=8)
    runs = [
        embed_images(images, pretrained, tolerance=None, draws=2, seed=seed) for seed in range(6)
    ]
    for metric in runs[0].noise.floors:
        distances = [
            one_to_one(a.vector, b.vector, metric, epsilon=a.epsilon) for a, b in pairwise(runs)
        ]
        stated = np.mean([run.noise.floors[metric] for run in runs])
        assert 0.5 < np.median(distances) / stated < 2.0, metric
    flat = np.zeros(pretrained.dim, np.float32)
    rows = np.stack([row_of(run) for run in runs])
    for metric in ("label", "domain", "discriminant", "combined"):
        ranker = Ranker.of(
            rows[0], metric, epsilon=runs[0].epsilon, population=Population(flat, flat)
        )
        distances = ranker.rank(rows[1:]).distances
        stated = noise_floor(get_metric(metric), runs[0].noise, ranker.lengths)
        assert stated == 0 or 0.6 < np.median(distances) / stated < 2.0, metric
        assert (stated == 0) == (metric == "discriminant")


def test_drawing_stops_at_the_tolerance_and_says_so(probe: Probe) -> None:
    images = coloured_noise(40, 8)
    loose, tight, most = (
        embed_images(images, probe, draws=6, tolerance=tolerance) for tolerance in (0.5, 0.02, 1e-6)
    )
    assert (loose.provenance.draws, loose.provenance.stopped) == (1, "tolerance")
    assert 1 < tight.provenance.draws <= 6
    assert (most.provenance.draws, most.provenance.stopped) == (6, "draws")
    assert loose.noise_floor > tight.noise_floor > most.noise_floor > 0
    assert (tight.noise_floor <= 0.02) == (tight.provenance.stopped == "tolerance")


def test_few_classes_are_measured_exactly_at_no_more_passes(probe: Probe) -> None:
    images = coloured_noise(20, 3)
    exact = embed_images(images, probe, estimator="exact")
    for embedding in (
        embed_images(images, probe, tolerance=None, draws=2),
        embed_images(images, probe, tolerance=1e-6),
    ):
        np.testing.assert_array_equal(embedding.vector, exact.vector)
        assert (embedding.provenance.estimator, embedding.provenance.draws) == ("exact", 2)
        assert (embedding.noise_floor, embedding.provenance.stopped) == (0.0, "exact")
    many = embed_images(coloured_noise(20, 4), probe, tolerance=None, draws=2)
    assert many.provenance.estimator == "hutchinson"


def test_where_memory_runs_out_smaller_batches_go_on(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the processor's allocator and a GPU's report it; the numbers stay the same."""
    images = coloured_noise(80, 3)
    whole = embed_images(images, probe, batch_size=16)
    sizes = []
    normalise = Probe.normalise

    def limited(self: Probe, pixels: np.ndarray) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if len(pixels) > 20:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return normalise(self, pixels)

    monkeypatch.setattr(Probe, "normalise", limited)
    halved = embed_images(images, probe, batch_size=64)
    assert sizes[:3] == [64, 32, 16]
    assert relative(halved, whole, "vector") < 1e-5

    def none(self: Probe, pixels: np.ndarray) -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr(Probe, "normalise", none)
    with pytest.raises(Unavailable, match="more memory"):
        embed_images(images, probe)


def test_other_failures_of_a_pass_are_not_taken_for_want_of_memory(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Probe, pixels: np.ndarray) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Probe, "normalise", broken)
    with pytest.raises(RuntimeError, match="do not fit"):
        embed_images(coloured_noise(40, 2), probe, batch_size=32)


def test_what_has_a_row_an_image_may_lie_in_files(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = coloured_noise(40, 2)
    in_memory = embed_images(images, probe)
    monkeypatch.setattr("app.embedding.spool.IN_MEMORY_BYTES", 1_000)
    in_files = embed_images(images, probe)
    for part in ("vector", "domain", "discriminants"):
        np.testing.assert_array_equal(getattr(in_files, part), getattr(in_memory, part))


def test_the_head_reports_while_it_fits(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop is heard while a penalty is tried, not once a penalty."""
    fit = penalty.minimise

    def slowly(*of: Any, **how: Any) -> Any:
        time.sleep(0.03)
        return fit(*of, **how)

    monkeypatch.setattr(penalty, "minimise", slowly)
    monkeypatch.setattr(penalty, "POLL_SECONDS", 1e-3)
    seen: list[Progress] = []
    embed_images(coloured_noise(40, 2), probe, on_progress=seen.append)
    steps = [p.done for p in seen if p.phase == "head"]
    assert len(steps) > 2 * len(set(steps))
    assert steps == sorted(steps)


def test_progress_counts_up_through_the_phases(probe: Probe) -> None:
    seen: list[Progress] = []
    embed_images(coloured_noise(40, 2), probe, batch_size=16, on_progress=seen.append)
    assert list(dict.fromkeys(p.phase for p in seen)) == ["features", "head", "fisher"]
    assert [p.done for p in seen if p.phase == "fisher"] == [16, 32, 40]
    assert seen[-1] == Progress("fisher", 40, 40)


def test_what_progress_raises_stops_the_work_at_that_batch(probe: Probe) -> None:
    seen: list[Progress] = []

    def cancel(progress: Progress) -> None:
        seen.append(progress)
        if progress.phase == "fisher":
            raise Cancelled("cancelled", "The job was cancelled.", "Start it again if needed.")

    with pytest.raises(Cancelled):
        embed_images(coloured_noise(40, 2), probe, batch_size=16, on_progress=cancel)
    assert seen[-1].done == 16
    assert not any(layer.module._forward_hooks for layer in probe.layers)


def test_a_task_of_single_images_falls_back_to_the_stated_penalty(probe: Probe) -> None:
    images = coloured_noise(3, 3)
    embedding = embed_images(images, probe)
    assert embedding.provenance.cv_accuracy is None
    assert embedding.complexity > 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"draws": 0}, "1 to 16"),
        ({"draws": 17}, "1 to 16"),
        ({"tolerance": 0.0}, "more than 0"),
        ({"batch_size": 8}, "at least 16"),
    ],
)
def test_settings_out_of_range_are_refused(probe: Probe, settings: dict, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        embed_images(coloured_noise(6, 2), probe, **settings)


def test_images_of_another_size_are_refused(probe: Probe) -> None:
    with pytest.raises(InvalidRequest, match="input size"):
        embed_images(coloured_noise(6, 2, size=16), probe)


def test_npz_gives_back_the_embedding(probe: Probe, tmp_path: Path) -> None:
    embedding = embed_images(coloured_noise(8, 2), probe)
    path = tmp_path / "task.npz"
    path.write_bytes(embedding.to_npz())
    found = TaskEmbedding.from_npz(path)
    np.testing.assert_array_equal(found.vector, embedding.vector)
    np.testing.assert_array_equal(found.discriminants, embedding.discriminants)
    assert found.provenance == embedding.provenance
    assert found.noise == embedding.noise
    assert found.space_id == probe.space_id
    with np.load(path) as data:
        assert {"vector", "domain", "discriminants", "label", "draw_error", "sampling_error", "complexity",
                "noise_floor", "provenance"} <= set(data.files)  # fmt: skip


def test_an_npz_of_before_lacks_discriminants_and_noise_and_is_read(
    probe: Probe, tmp_path: Path
) -> None:
    embedding = embed_images(coloured_noise(8, 2), probe)
    with np.load(io.BytesIO(embedding.to_npz())) as data:
        older = {name: data[name] for name in set(data.files) - {"discriminants", "noise"}}
    np.savez(tmp_path / "older.npz", **older)
    found = TaskEmbedding.from_npz(tmp_path / "older.npz")
    assert found.discriminants.shape == (RANK, 0)
    assert found.noise == Noise({"cosine": embedding.noise_floor})
    assert one_to_one(found.vector, embedding.vector, "cosine", epsilon=1e-12) == 0
    axes = embedding.discriminants
    for broken in (axes[:2], axes * np.float32(np.nan), axes.astype(np.float64)):
        with pytest.raises(InvalidRequest, match="discriminants"):
            replace(embedding, discriminants=broken)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x80\x04pickle"])
def test_a_file_that_is_no_embedding_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not an embedding file"):
        TaskEmbedding.from_npz(content)


def test_an_embedding_with_nan_is_refused(probe: Probe) -> None:
    embedding = embed_images(coloured_noise(8, 2), probe)
    vector = embedding.vector.copy()
    vector[0] = np.nan
    with pytest.raises(InvalidRequest, match="non-finite"):
        replace(embedding, vector=vector)
    for broken in ({"jsd": 0.1}, {"cosine": -0.1}, {"cosine": np.inf}):
        with pytest.raises(InvalidRequest, match="noise"):
            Noise(broken)
