from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.embedding.parts import Population
from app.embedding.vector import RANK, Noise, TaskEmbedding
from app.errors import DifferentSpaces
from app.reference.library import task_card, write_library
from tests import provenance

EPSILON = 1e-12
PROVENANCE = replace(provenance.PROVENANCE, n_images=60, n_classes=3)


def embedding(seed: int) -> TaskEmbedding:
    """Entries over ten decades, a quarter of them dead."""
    generator = np.random.default_rng(seed)
    vector = 10 ** generator.uniform(-11, -1, 400)
    vector[::4] = 0
    discriminants = generator.normal(size=(RANK, 12)) * 10.0**seed
    return TaskEmbedding(
        vector=vector.astype(np.float32),
        domain=(vector * generator.uniform(0.2, 5, 400)).astype(np.float32),
        discriminants=discriminants.astype(np.float32),
        draw_error=(vector * generator.uniform(0.01, 1, 400)).astype(np.float32),
        sampling_error=(vector * generator.uniform(0.01, 1, 400)).astype(np.float32),
        noise=Noise({"cosine": 0.01 * seed, "jsd": 0.002}, label=30.0, domain=2.0),
        epsilon=EPSILON,
        space_id="a-space",
        provenance=PROVENANCE,
    )


def entry(name: str, of: TaskEmbedding):
    return task_card(of, name=name, tags=["x"], source="s 1.0", licence="MIT"), of


def test_the_service_reads_back_what_the_library_keeps(tmp_path: Path) -> None:
    from app.store.reference import _entries

    kept = {"b-task": embedding(2), "a-task": embedding(1)}
    path = tmp_path / "p.npz"
    write_library(path, [entry(name, of) for name, of in kept.items()])
    with np.load(path, allow_pickle=False) as library:
        read = {card["name"]: (card, of) for card, of in _entries(library)}
    assert list(read) == ["a-task", "b-task"]
    for name, original in kept.items():
        card, of = read[name]
        assert (card["n_images"], card["n_classes"], card["licence"]) == (60, 3, "MIT")
        np.testing.assert_array_equal(of.vector == 0, original.vector == 0)
        np.testing.assert_allclose(of.vector, original.vector, rtol=0.022, atol=0.05 * EPSILON)
        np.testing.assert_allclose(of.domain, original.domain, rtol=0.022, atol=0.05 * EPSILON)
        np.testing.assert_allclose(of.draw_error, original.draw_error, rtol=0.22, atol=EPSILON)
        np.testing.assert_allclose(
            of.sampling_error, original.sampling_error, rtol=0.22, atol=EPSILON
        )
        assert of.noise == original.noise
        assert of.provenance == PROVENANCE


def test_the_trivial_constant_is_the_median_live_entry(tmp_path: Path) -> None:
    vectors = [np.float32([0, 0, 1, 2]), np.float32([0, 3, 4, 5])]
    same = {"domain": vectors[0], "draw_error": vectors[0], "sampling_error": vectors[0]}
    made = [replace(embedding(1), vector=vector, **same) for vector in vectors]
    write_library(tmp_path / "p.npz", [entry(str(i), of) for i, of in enumerate(made)])
    with np.load(tmp_path / "p.npz") as library:
        assert library["trivial"] == 3


def test_an_error_far_above_its_entry_is_kept_as_the_largest_there_is(tmp_path: Path) -> None:
    from app.store.reference import _entries

    of = embedding(1)
    of = replace(of, sampling_error=of.vector * np.float32(1e6))
    write_library(tmp_path / "p.npz", [entry("a", of)])
    with np.load(tmp_path / "p.npz") as library:
        ((_, read),) = _entries(library)
    np.testing.assert_allclose(read.sampling_error, read.vector * 2**15.5, rtol=0.001)


def test_the_population_is_that_of_all_tasks(tmp_path: Path) -> None:
    made = [embedding(seed) for seed in (1, 2, 3)]
    write_library(tmp_path / "p.npz", [entry(str(seed), of) for seed, of in enumerate(made)])
    rows = np.stack([np.concatenate([of.vector, of.domain]) for of in made])
    expected = Population.of(rows, EPSILON)
    with np.load(tmp_path / "p.npz") as library:
        np.testing.assert_array_equal(library["population_label"], expected.label)
        np.testing.assert_array_equal(library["population_domain"], expected.domain)
        assert library["population_label"].dtype == np.float32
        assert np.ptp(library["population_label"]) > 0.1


def test_the_same_embeddings_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    entries = [entry("a", embedding(1)), entry("b", embedding(2))]
    write_library(tmp_path / "one.npz", entries)
    write_library(tmp_path / "two.npz", entries[::-1])
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_embeddings_of_two_spaces_make_no_library(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    write_library(path, [entry("a", embedding(1))])
    before = path.read_bytes()
    strange = replace(embedding(2), space_id="another-space")
    with pytest.raises(DifferentSpaces):
        write_library(path, [entry("a", embedding(1)), entry("b", strange)])
    assert path.read_bytes() == before
