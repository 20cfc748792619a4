from __future__ import annotations

import numpy as np
import pytest

from app.cost.conformal import LEAST_GROUPS
from app.cost.correction import Correction, Factor, Setting


def setting(task: int = 0, model: str = "a", device: str = "gpu", recipe: str = "full") -> Setting:
    return Setting(f"task-{task}", model, recipe, device)


def runs(n_tasks: int, *, noise: float = 0.1, seed: int = 0) -> tuple[list[Setting], np.ndarray]:
    """Twice what was counted, three times for model b, and what chance adds by task and by run."""
    generator = np.random.default_rng(seed)
    settings = [setting(task, model) for task in range(n_tasks) for model in "ab" for _ in range(3)]
    odd = generator.normal(0, noise, n_tasks).repeat(6)
    factor = np.array([2.0 if each.model == "a" else 3.0 for each in settings])
    return settings, np.log(factor) + odd + generator.normal(0, noise, len(settings))


def typical(correction: Correction, **asked: object) -> float:
    factor = correction.factor(setting(99, **asked))
    assert factor is not None
    return factor.typical


def test_a_new_task_is_corrected_by_what_others_took():
    correction = Correction(*runs(12))
    assert typical(correction) == pytest.approx(2.0, rel=0.15)
    assert typical(correction, model="b") == pytest.approx(3.0, rel=0.15)


def test_nothing_is_said_of_another_device():
    assert Correction(*runs(12)).factor(setting(device="abacus")) is None
    assert Correction([], np.array([])).factor(setting()) is None


def test_one_run_moves_its_own_candidate_most_and_others_less():
    correction = Correction([setting()], np.log([8.0]))
    own, other = typical(correction), typical(correction, model="b")
    assert 1.5 < other < own < 8.0
    assert correction.factor(setting(99)) == Factor(own)


def test_a_few_absurd_runs_hardly_count():
    settings, ratios = runs(12)
    ratios[::10] = np.log(500.0)
    assert typical(Correction(settings, ratios)) == pytest.approx(2.0, rel=0.25)


def test_a_run_that_was_not_measured_says_nothing():
    settings, ratios = runs(3)
    more = Correction([*settings, setting(7, "c")], np.append(ratios, np.nan))
    assert more.n_tasks == 3
    assert typical(more) == typical(Correction(settings, ratios))


def test_intervals_cover_ninety_per_cent_of_new_tasks():
    inside = []
    for seed in range(6):
        settings, ratios = runs(60, noise=0.3, seed=seed)
        first = [i for i, each in enumerate(settings) if int(each.task[5:]) < 20]
        correction = Correction([settings[i] for i in first], ratios[first])
        for each, ratio in list(zip(settings, ratios, strict=True))[len(first) :]:
            factor = correction.factor(each)
            inside.append(factor.low <= np.exp(ratio) <= factor.high)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.05)


def test_intervals_take_nine_tasks_and_outcomes_of_the_candidate_itself():
    assert Correction(*runs(LEAST_GROUPS - 1)).factor(setting(99)).low is None
    enough = Correction(*runs(LEAST_GROUPS))
    assert enough.factor(setting(99)).low < enough.factor(setting(99)).typical
    assert enough.factor(setting(99, "stranger")).low is None


def test_a_calibration_that_is_given_is_taken():
    settings, ratios = runs(12)
    fresh = Correction(settings, ratios)
    assert Correction(settings, ratios, fresh.half).factor(setting(99)) == fresh.factor(setting(99))
    assert Correction(settings, ratios, float("inf")).factor(setting(99)).low is None


def test_what_is_missed_is_judged_without_the_task():
    settings, ratios = runs(12, noise=0.0)
    ratios[:6] += 5.0
    missed, task = Correction(settings, ratios).missed
    names = sorted({each.task for each in settings})
    assert missed[task == names.index("task-0")].min() > 4.0
    assert missed[task != names.index("task-0")].max() < 1.0
