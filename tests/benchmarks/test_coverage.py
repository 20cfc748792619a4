from __future__ import annotations

import json

import pytest

from benchmarks import coverage


def test_intervals_that_know_the_truth_cover_what_is_stated() -> None:
    found = coverage.simulated(20, 0.0, populations=4)
    assert found.calibrated == pytest.approx(0.9, abs=0.02)
    assert found.guaranteed > found.calibrated
    assert 0.6 < found.worst <= 0.9
    assert found.worst == pytest.approx(found.worst_ideal, abs=0.1)


def test_the_last_line_has_every_population(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverage, "TASKS", (9,))
    coverage.main(["--populations", "1"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(figures) == len(coverage.SHARES)
    assert set(figures["9 tasks, 0.3 in common"]) == {
        *("guaranteed", "calibrated", "worst", "worst_ideal"),
    }
