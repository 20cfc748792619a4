from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.first_walk import demo

SAYS = ("The service is ready after 2 s at X.", "Nearest to digits", "Candidates for digits")


def makefile(folder: Path, *lines: str) -> Path:
    told = "".join(f"\t@echo '{line}'\n" for line in lines)
    (folder / "Makefile").write_text(f"demo:\n{told}")
    return folder


def test_steps_are_told_as_they_come(tmp_path: Path) -> None:
    told = demo(makefile(tmp_path, *SAYS), began=-10.0)
    steps = {name.rpartition(": ")[2]: seconds for name, seconds in told.items()}
    assert list(steps) == ["installed", "ready", "embedded", "answered", "longest silence"]
    assert steps["ready"] == pytest.approx(steps["installed"] + 2)
    assert 10 < steps["ready"] <= steps["embedded"] <= steps["answered"]


def test_a_walk_that_does_not_arrive_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="having told of"):
        demo(makefile(tmp_path, *SAYS[:2]), began=0.0)
