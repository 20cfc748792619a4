"""Learning from nothing, on made-up pictures: what is looked at, blurred, kept and summed up."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.critical_period import CLOTHES, EXPERIMENTS, Blur, figures, main
from benchmarks.information_trace import looks, summary
from benchmarks.learning.cells import made
from benchmarks.learning.networks import residual
from benchmarks.learning.pictures import Pictures, blurred, made_up_of
from benchmarks.learning.training import Look, learn, steps_an_epoch


@pytest.fixture(scope="module")
def data() -> Pictures:
    """Fine stripes that lie or stand: gone once they are blurred."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(320) % 2
    stripes = (torch.arange(28) % 2 * 2.0 - 1).repeat(28, 1)
    pixels = torch.stack([stripes if label else stripes.T for label in labels])[:, None]
    pixels = pixels + 0.3 * torch.randn(pixels.shape, generator=generator)
    return Pictures(pixels[:256], labels[:256], pixels[256:], labels[256:])


def test_looks_are_where_they_were_asked_for_and_information_rises(data: Pictures) -> None:
    assert steps_an_epoch(data) == 2
    told = learn(data, 0, 3, {0, 1, 6}, traced=True)
    assert [look.step for look in told] == [0, 1, 6]
    assert np.isnan(told[0].training_loss)
    assert told[-1].information > 10 * told[0].information > 0
    again = learn(data, 0, 3, {6})
    assert again[0].accuracy == told[-1].accuracy, "looking changes nothing"
    assert again[0].information is None


def test_a_blur_takes_fine_detail_away_and_can_be_told_from_clear_sight(data: Pictures) -> None:
    assert blurred(data.pixels).std() < 0.3 * data.pixels.std()
    clear, dim = (
        learn(data, 0, 6, {12}, is_blurred=how)[0] for how in (lambda _: False, lambda _: True)
    )
    assert dim.training_loss > 2 * clear.training_loss


def test_a_run_is_made_once(tmp_path: Path) -> None:
    calls = []

    def run() -> list[Look]:
        calls.append(1)
        return [Look(3, float("nan"), 1.0, 0.5, None)]

    first, again = (made(tmp_path / "a" / "run.json", run) for _ in range(2))
    assert len(calls) == 1
    assert (first[0].step, first[0].accuracy) == (again[0].step, again[0].accuracy) == (3, 0.5)


def test_early_steps_are_looked_at_more_often() -> None:
    assert looks(32, 3) == [0, 1, 2, 4, 8, 16, 32, 64, 96]


def test_a_trace_is_summed_up_by_what_comes_after_its_peak() -> None:
    found = summary(
        np.array([0, 10, 20]),
        np.array([[0.1, 0.5, 0.8], [0.1, 0.7, 0.8]]),
        np.array([[1.0, 10.0, 2.0], [2.0, 20.0, 4.0]]),
    )
    assert found["peak_step"] == [10, 10]
    assert found["start_over_peak"] == [0.1, 0.0]
    assert found["end_over_peak"] == [0.2, 0.0]
    assert found["accuracy_gained_after_peak"] == [0.2, 0.1]


def test_a_residual_network_learns_as_well(data: Pictures) -> None:
    first, last = learn(data, 0, 3, {1, 6}, network=partial(residual, width=8))
    assert last.training_loss < first.training_loss


def test_pictures_are_normalised_by_those_that_are_learnt_from() -> None:
    learnt, judged = (torch.full((4, 8, 8), value, dtype=torch.uint8) for value in (10, 30))
    learnt[:2] = 30
    found = made_up_of(learnt, torch.arange(4) % 3, judged, torch.zeros(4))
    assert found.pixels.mean().abs() < 1e-6
    assert found.judged_pixels.mean() == pytest.approx(1.0, rel=0.01)
    assert found.kinds == 3


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_run_is_planned_once_and_none_outlasts_the_one_without_blur(name: str) -> None:
    experiment = EXPERIMENTS[name]
    planned = experiment.blurs()
    assert len(set(planned)) == len(planned)
    assert max(blur.epochs for blur in planned) == experiment.never.epochs
    assert all(blur.epochs % 5 == 0 for blur in planned), "it is looked at then"


def test_a_blurred_run_is_held_against_a_clear_one_of_its_seed_and_length() -> None:
    def runs(blur: Blur) -> list[list[Look]]:
        """Every epoch of blur costs a point, the second seed two more in all; a clear one gains a
        tenth of a point."""
        blurred_for = blur.stop - blur.start
        return [
            [
                Look(
                    32 * epoch,
                    0.0,
                    0.0,
                    0.5 + 0.001 * epoch - 0.01 * blurred_for - extra * (blurred_for > 0),
                    None,
                )
                for epoch in range(0, blur.epochs + 1, 5)
            ]
            for extra in (0.0, 0.02)
        ]

    found = figures(CLOTHES, runs)
    assert found["lost_by_deficit_until"] == {k: [k + 1.0, 1.0] for k in CLOTHES.deficits}
    assert found["lost_by_window_from"] == {k: [11.0, 1.0] for k in CLOTHES.windows}
    assert found["of_as_many_clear_epochs_by_window_from"] == {
        k: [10.0, 1.0] for k in CLOTHES.windows
    }
    assert found["clear_accuracy"] == 54.0
    assert "information" not in found


def test_runs_that_were_made_are_summed_up_and_drawn(
    data: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    small = replace(
        CLOTHES,
        pictures=partial(_given, data),
        learnt=256,
        judged=64,
        network=partial(residual, width=8),
        deficits=(5,),
        windows=(0, 5),
        window=5,
        clear=5,
        traced=True,
    )
    monkeypatch.setitem(EXPERIMENTS, "clothes", small)
    asked = ["clothes", "--cache-dir", str(tmp_path), "--device", "cpu"]
    main([*asked, "--plot", str(tmp_path / "a.svg")])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["clothes"]
    assert set(found["lost_by_window_from"]) == {"0", "5"}
    assert set(found["information"]) == {"0", "5", "10"}
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    assert len(list((tmp_path / "clothes").iterdir())) == 2 * 3


def _given(data: Pictures, *_: object) -> Pictures:
    return data
