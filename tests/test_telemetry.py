"""Events are JSON lines for programs, and plain ones for whoever watches a terminal."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from app.telemetry import configure_logging, log_event


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logger() -> Iterator[None]:
    logger = logging.getLogger("task2vec")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def told(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging()
    log_event("job.started", task_id="t")
    try:
        raise ValueError("torn\x1b[31m")
    except ValueError:
        log_event("job.failed", level=logging.ERROR, exc_info=True, name="a\nb\x1b[2J")
    return stream.getvalue()


def test_programs_read_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = map(json.loads, told(io.StringIO(), monkeypatch).splitlines())
    assert (first["event"], first["task_id"], first["level"]) == ("job.started", "t", "info")
    assert second["exception"].endswith("ValueError: torn\x1b[31m")


def test_a_terminal_shows_a_line_an_event_and_nothing_that_steers_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, *trace = told(Terminal(), monkeypatch).splitlines()
    assert first[2] == ":" and first.endswith(" job.started task_id=t")
    assert second.endswith(" error job.failed name=a b [2J")
    assert trace[-1].endswith("ValueError: torn [31m")
    assert "\x1b" not in "".join([first, second, *trace])
