"""Steps beside their counts, on the smallest of candidates."""

from __future__ import annotations

import json

import pytest

from app.catalogue import CandidateCard, get_card
from app.cost.predictor import Interval
from app.cost.timing import Spread, Timing
from app.settings import shared_directory
from benchmarks import decoding, scoring, steps
from benchmarks.roofline import training_step
from benchmarks.steps import Step, summary

NAME = "mobilenetv3_small_100.lamb_in1k"


def step(seconds: float) -> Step:
    timing = Timing(4, Spread(seconds, seconds, seconds), Spread(seconds, seconds, seconds))
    return Step("a", timing, Interval(0.5, 1.0, 2.0), (100, 50))


def test_the_shared_factor_and_what_is_left_beside_it() -> None:
    found = summary([step(2.0), step(1.0), step(4.0)])
    assert found["timed_over_counted_median"] == 2.0
    assert found["spread_around_median"] == 2.0
    assert found["inside"] == pytest.approx(2 / 3, abs=1e-3)
    assert found["step_us_per_operation_median"] == 20_000
    assert found["forward_us_per_operation_median"] == 40_000


def test_a_step_is_counted_without_reading_its_images() -> None:
    card = get_card(shared_directory("models"), CandidateCard, NAME)
    one, two = (training_step(card, batch, "adamw") for batch in (8, 16))
    assert two.flops == 2 * one.flops
    assert one.decoding == one.decoded_images == 0


def test_steps_are_timed_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    steps.main([NAME, "--batches", "2", "--steps", "3", "--seconds", "0"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["steps"], told["device"]) == (1, "cpu-2core")
    (each,) = told["each"]
    assert (each["candidate"], each["batch_size"]) == (NAME, 2)
    assert each["step_ms_per_image"] > each["forward_ms_per_image"] > 0


def test_decoding_is_told_in_the_reference_jpegs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SIZES", ((64, 64), (500, 375)))
    decoding.main(["--rounds", "1"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    efforts = {(row["format"], row["pixels"]): row["effort"] for row in told["each"]}
    assert efforts["JPEG", 187_500] == 1.0
    assert efforts["JPEG", 4_096] < 1.0


def test_scores_are_timed_beside_the_pass_that_they_are_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scoring.main(["--images", "40", "--classes", "4", "--passed", "1", "--repeats", "1"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["images"] == 40
    assert found["pass_seconds"] > 0
    assert found["scores_over_pass"] > 0
