from __future__ import annotations

import numpy as np
import pytest

from app.cost.level import ENOUGH, OFFSET_SD, SLOPE_SD, UNKNOWN_SD, Level

NAN = float("nan")


def by(*measures: list[float] | np.ndarray) -> np.ndarray:
    """Eases as columns."""
    return np.column_stack([np.asarray(measure, dtype=np.float64) for measure in measures])


def level_of(
    levels: np.ndarray, ease: np.ndarray, parent: Level | None = None, measured: float = 0.0
) -> Level:
    return Level(levels, ease, np.full(len(levels), measured), parent)


def at(level: Level, ease: float) -> tuple[float, float]:
    return level.at(np.array([ease]))


def test_without_eases_a_level_is_the_mean_and_as_far_off_as_others_were():
    levels = np.array([0.0, 1.0, 2.0])
    mean, sd = at(level_of(levels, by(np.full(3, NAN))), 1.0)
    assert (mean, sd) == (1.0, pytest.approx(np.sqrt(4 / 3)))


def test_one_contest_alone_says_little():
    assert at(level_of(np.array([0.7]), by([NAN])), NAN) == (0.7, UNKNOWN_SD)


def test_a_level_follows_ease_as_far_as_it_did_before():
    generator = np.random.default_rng(0)
    ease = generator.normal(0, 1, 40)
    for slope in (0.0, 0.8):
        level = level_of(1.0 + slope * ease + generator.normal(0, 0.1, 40), by(ease))
        low, high = at(level, -2.0)[0], at(level, 2.0)[0]
        assert (high - low) / 4 == pytest.approx(slope, abs=0.05)
        assert at(level, 0.0)[1] == pytest.approx(0.1, abs=0.03)
        assert at(level, 30.0)[1] > 3 * at(level, 0.0)[1]


def test_an_unknown_ease_is_told_from_all_contests():
    level = level_of(np.array([0.0, 1.0, 2.0, 7.0]), by([0.0, 1.0, 2.0, NAN]))
    assert at(level, NAN)[0] == 2.5
    assert at(level, 1.0)[0] == pytest.approx(1.0)


def test_a_league_with_few_contests_takes_its_parents_line_and_an_offset():
    ease = np.linspace(-2, 2, 20)
    parent = level_of(1.0 + 0.8 * ease, by(ease))
    alone = level_of(np.array([]), by([]), parent)
    assert at(alone, 1.0)[0] == pytest.approx(1.8, abs=0.01)
    assert at(alone, 0.0)[1] == pytest.approx(OFFSET_SD, rel=0.05)
    assert at(alone, 2.0)[1] == pytest.approx(np.hypot(OFFSET_SD, 2.0 * SLOPE_SD), rel=0.05)
    seen = level_of(np.array([2.0, 2.8]), by([0.0, 1.0]), parent)  # one above the line
    assert at(seen, -1.0)[0] == pytest.approx(1.2, abs=0.05)
    assert at(seen, -1.0)[1] < 0.5 * at(alone, -1.0)[1]


def test_with_many_contests_a_league_has_its_own_line():
    generator = np.random.default_rng(4)
    ease = generator.normal(0, 1, 400)
    parent = level_of(5.0 - ease, by(ease))
    levels = ease + generator.normal(0, 0.2, 400)
    found, own = level_of(levels, by(ease), parent), level_of(levels, by(ease))
    for asked in (-2.0, 0.0, 2.0):
        assert at(found, asked)[0] == pytest.approx(at(own, asked)[0], abs=0.05)
        assert at(found, asked)[1] == pytest.approx(at(own, asked)[1], rel=0.1)


@pytest.mark.parametrize("n", [1, 4, 7, 8, 13, 40])
def test_own_contests_never_tell_less_than_the_parent_or_they_alone(n):
    generator = np.random.default_rng(5)
    off, inside = {"both": [], "parent": [], "own": []}, []
    for _ in range(300):
        ease = generator.normal(0, 1, 60)
        parent = level_of(0.6 * ease + generator.normal(0, 0.5, 60), by(ease))
        own_ease = generator.normal(0, 1, n + 1)
        levels = generator.normal(0, OFFSET_SD) + 0.6 * own_ease + generator.normal(0, 0.5, n + 1)
        known, easy = levels[:-1], by(own_ease[:-1])
        mean, sd = at(level_of(known, easy, parent), own_ease[-1])
        inside.append(abs(levels[-1] - mean) < 1.645 * sd)
        for name, found in (
            ("both", mean),
            ("parent", at(parent, own_ease[-1])[0]),
            ("own", at(level_of(known, easy), own_ease[-1])[0]),
        ):
            off[name].append((found - levels[-1]) ** 2)
    error = {name: np.sqrt(np.mean(each)) for name, each in off.items()}
    assert error["both"] < 1.02 * min(error["parent"], error["own"]), error
    assert np.mean(inside) > 0.85  # of 300: 0.9 less three standard errors


@pytest.mark.parametrize("n", [1, 4, 13, 40])
def test_levels_measured_on_few_images_move_what_is_told_less(n):
    generator = np.random.default_rng(6)
    measured = 1.0
    off, inside = {"counted": [], "exact": []}, {"counted": [], "exact": []}
    for _ in range(300):
        ease = generator.normal(0, 1, 60)
        parent = level_of(0.6 * ease + generator.normal(0, 0.5, 60), by(ease))
        own_ease = generator.normal(0, 1, n + 1)
        levels = generator.normal(0, OFFSET_SD) + 0.6 * own_ease + generator.normal(0, 0.5, n + 1)
        seen = levels[:-1] + generator.normal(0, np.sqrt(measured), n)
        for name, noise in (("counted", measured), ("exact", 0.0)):
            mean, sd = at(level_of(seen, by(own_ease[:-1]), parent, noise), own_ease[-1])
            off[name].append((mean - levels[-1]) ** 2)
            inside[name].append(abs(levels[-1] - mean) < 1.645 * sd)
    error = {name: np.sqrt(np.mean(each)) for name, each in off.items()}
    assert error["counted"] < error["exact"], error
    assert np.mean(inside["counted"]) == pytest.approx(0.9, abs=0.05)


def test_it_covers_what_it_says():
    generator = np.random.default_rng(1)
    inside = []
    for _ in range(400):
        ease = generator.normal(0, 1, 8)
        levels = 0.6 * ease + generator.normal(0, 0.3, 8)
        mean, sd = at(level_of(levels[:-1], by(ease[:-1])), ease[-1])
        inside.append(abs(levels[-1] - mean) < 1.645 * sd)
    assert np.mean(inside) == pytest.approx(0.88, abs=0.04)  # normal, of six degrees of freedom


def test_the_first_measure_that_is_known_tells():
    generator = np.random.default_rng(2)
    good, poor = generator.normal(0, 1, (2, 30))
    levels = 0.9 * good + generator.normal(0, 0.05, 30)
    level = level_of(levels, by(good, poor))
    assert level.at(np.array([2.0, -2.0]))[0] == pytest.approx(1.8, abs=0.1)
    assert level.at(np.array([2.0, -2.0]))[1] < 0.2 * level.at(np.array([NAN, -2.0]))[1]
    rarely = level_of(levels, by(np.where(np.arange(30) < ENOUGH - 1, good, NAN), poor))
    assert rarely.at(np.array([2.0, 0.5])) == rarely.at(np.array([NAN, 0.5])), "by what most know"
