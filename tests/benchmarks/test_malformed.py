"""Hostile archives and images: refused or read, never more than that, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import malformed
from benchmarks.hostile import Case, few
from benchmarks.malformed import MOST_ADDED_MIB, Told, run, summary

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is asked of Linux"
)


def test_a_few_of_every_kind_are_refused_or_read() -> None:
    told = list(run(few(150)))
    assert [each for each in told if each.failed] == []
    assert len(told) >= 140
    found = summary(told)
    assert found["most_added_mib"] < MOST_ADDED_MIB
    kinds = {each.name.partition("/")[0] for each in told}
    assert kinds == {"zip", "tar", "picture", "labels", "damaged"}
    outcomes = {each.outcome.partition(":")[0] for each in told}
    assert outcomes == {"refused by the API", "refused at intake", "read"}


def test_the_same_seed_makes_the_same_cases() -> None:
    assert list(few(40)) == list(few(40)) != list(few(40, seed=1))


def test_what_goes_wrong_is_told_and_the_rest_is_read_by_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Reader(malformed._Reader):
        def read(self, name: str, data: bytes) -> Told:
            if name == "deadly":
                self._process.kill()
            return super().read(name, data)

    monkeypatch.setattr(malformed, "_Reader", Reader)

    def cases() -> Iterator[Case]:
        yield "deadly", b"x"
        yield from list(few(4))[:1]

    dead, alive = run(cases())
    assert "ended the process: -9" in dead.failed
    assert not alive.failed
    assert summary([dead, alive])["failed"] == ["deadly"]


@pytest.mark.slow
def test_a_thousand_and_more_are_refused_or_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert malformed.main(["--n", "1400"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["cases"] >= 1400
    assert found["failed"] == []
