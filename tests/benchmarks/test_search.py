"""The search benchmark on few tasks: its truth is the truth, and its figures are about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.embedding.distance import COMBINED
from benchmarks import search
from benchmarks.searching.made import K, Made, build
from benchmarks.searching.population import GROVE, Library

SIZE = GROVE + 100


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made.of(tmp_path_factory.mktemp("search"), SIZE, queries=6)
    build(made, processes=2)
    return made


def test_groves_are_the_same_again_and_differ_from_each_other(made: Made) -> None:
    library: Library = made.library
    first = library.grove(0)
    np.testing.assert_array_equal(first, library.grove(0))
    assert not np.array_equal(first, library.grove(1))
    assert np.isfinite(first).all()
    dim = library.vector.shape[1]
    assert (first[:, : 2 * dim] >= 0).all()
    dead = (first[:, :dim] == 0).mean(axis=1)
    assert library.dead.mean(axis=1).min() <= dead.min() <= dead.max() < 1


def test_truth_is_that_of_all_pairs(made: Made) -> None:
    rows = np.concatenate([made.rows(number) for number in made.groves])
    assert len(rows) == SIZE
    alike = made.parts(made.query_rows()).alike(made.parts(rows), COMBINED)
    for seq, likeness, nearest in zip(made.query_seqs, alike, made.truth(), strict=True):
        likeness[seq - 1] = -np.inf
        np.testing.assert_array_equal(nearest, np.argsort(-likeness)[:K] + 1)


def test_what_is_there_is_not_made_again(made: Made) -> None:
    before = made.index().shelf.manifest
    build(made, processes=1)
    assert made.index().shelf.manifest == before
    assert len(made.index().shelf) == SIZE


def test_the_last_line_tells_recall_latency_and_size(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(search, "IN_DATABASE", 0)
    directory = made.directory.parent / "named"
    directory.mkdir()
    (directory / str(SIZE)).symlink_to(made.directory)
    picture = tmp_path / "search.svg"
    search.main(
        [
            *("--size", str(SIZE), "--queries", "6", "--processes", "1"),
            *("--directory", str(directory), "--plot", str(picture)),
        ]
    )
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    row = found[str(SIZE)]
    assert row["recall_at_10"] > 0.95
    assert {"latency_ms_median", "exhaustive_ms_median", "bytes_per_task"} <= row.keys()
    assert found["library"]["proposed_recall_at_10"] > 0.9
    assert "<svg" in picture.read_text()
