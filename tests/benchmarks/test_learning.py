"""Learning from nothing, on made-up pictures: what is looked at, blurred, kept and summed up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.critical_period import DEFICITS, WINDOW, WINDOWS, Blur, blurs, figures
from benchmarks.information_trace import looks, summary
from benchmarks.learning.cells import made
from benchmarks.learning.clothes import Clothes, blurred
from benchmarks.learning.training import Look, learn, steps_an_epoch


@pytest.fixture(scope="module")
def data() -> Clothes:
    """Fine stripes that lie or stand: gone once they are blurred."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(320) % 2
    stripes = (torch.arange(28) % 2 * 2.0 - 1).repeat(28, 1)
    pixels = torch.stack([stripes if label else stripes.T for label in labels])[:, None]
    pixels = pixels + 0.3 * torch.randn(pixels.shape, generator=generator)
    return Clothes(pixels[:256], labels[:256], pixels[256:], labels[256:])


def test_looks_are_where_they_were_asked_for_and_information_rises(data: Clothes) -> None:
    assert steps_an_epoch(data) == 2
    told = learn(data, 0, 3, {0, 1, 6}, traced=True)
    assert [look.step for look in told] == [0, 1, 6]
    assert np.isnan(told[0].training_loss)
    assert told[-1].information > 10 * told[0].information > 0
    again = learn(data, 0, 3, {6})
    assert again[0].accuracy == told[-1].accuracy, "looking changes nothing"
    assert again[0].information is None


def test_a_blur_takes_fine_detail_away_and_can_be_told_from_clear_sight(data: Clothes) -> None:
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


def test_every_blurred_run_is_held_against_a_clear_one_of_its_length() -> None:
    planned = {(blur.start, blur.stop, blur.epochs) for blur in blurs()}
    assert all((0, 0, epochs) in planned for _, _, epochs in planned)
    assert len(planned) == len(blurs())

    def runs(blur: Blur) -> list[list[Look]]:
        """Every epoch of blur costs a point, the second seed two more in all."""
        lost = 0.01 * (blur.stop - blur.start)
        return [[Look(1, 0.0, 0.0, 0.9 - lost - extra * (lost > 0), None)] for extra in (0.0, 0.02)]

    found = figures(runs)
    assert found["lost_by_deficit_until"] == {k: [k + 1.0, 1.0] for k in DEFICITS if k}
    assert found["lost_by_window_from"] == {k: [WINDOW + 1.0, 1.0] for k in WINDOWS}
    assert found["clear_accuracy"] == 90.0
