"""The arithmetic of deploy/scaling.md is that of its script, and its inputs are what is measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.scaling import INPUTS, TASKS, inputs, main, reckon, table

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "deploy" / "scaling.md").read_text()


def test_the_page_shows_what_the_script_reckons() -> None:
    assert table([reckon(n_tasks) for n_tasks in TASKS]) in PAGE
    assert inputs() in PAGE


def test_the_script_prints_both_and_json_last(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    printed = capsys.readouterr().out
    assert inputs() in printed
    assert printed.splitlines()[-1].startswith('{"gpu_share": 0.11')


def test_what_is_counted_grows_with_tasks_and_what_is_searched_grows_slower() -> None:
    million, hundred = reckon(10**6), reckon(10**8)
    assert hundred.database_bytes == pytest.approx(100 * million.database_bytes)
    assert hundred.jobs_a_second == pytest.approx(1e6 / 86_400 * 3)
    assert million.search_seconds == INPUTS["search"].value
    assert hundred.search_seconds < 10 * million.search_seconds


def test_a_task_takes_as_many_bytes_as_is_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "LIFECYCLES", 3)
    found = scaling.measured(None, tmp_path)
    assert found["row_bytes"] == pytest.approx(INPUTS["row"].value, rel=0.05)


def test_every_benchmark_that_an_input_names_is_there() -> None:
    named = {
        name for each in INPUTS.values() for name in re.findall(r"benchmarks\.(\w+)", each.source)
    }
    assert {"search", "embedding_speed", "devices", "scaling"} <= named
    for name in named:
        assert (ROOT / "benchmarks" / f"{name}.py").exists()


def test_every_record_that_the_page_leans_on_is_there() -> None:
    for number in re.findall(r"records? (\d+)", PAGE):
        assert list((ROOT / "docs" / "decisions").glob(f"{int(number):04d}-*.md"))
