"""The benchmarks of the atlas and of matrices of distances, on few tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.embedding.distance import METRICS
from benchmarks import atlas, distances


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_the_library_falls_into_its_media(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas.main(["--size", "300", "--directory", str(tmp_path), "--processes", "1"])
    found = last_line(capsys)
    library, made = found["library"], found["made"]
    assert library["trustworthiness"] > 0.9
    assert library["agreement_medium"] > 0.7
    assert library["agreement_question"] < library["agreement_medium"]
    assert made["trustworthiness"] > 0.9
    assert made["moved_by_settling"] < 0.1


def test_matrices_are_timed_by_every_metric(capsys: pytest.CaptureFixture[str]) -> None:
    distances.main(["--tasks", "4"])
    assert last_line(capsys)["seconds"].keys() == METRICS.keys()
