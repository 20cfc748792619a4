from __future__ import annotations

import numpy as np
import pytest

from app.cost.level import ENOUGH, OFFSET_SD, UNKNOWN_SD, Level

NAN = float("nan")


def test_without_eases_a_level_is_the_mean_and_as_far_off_as_others_were():
    levels = np.array([0.0, 1.0, 2.0])
    mean, sd = Level(levels, np.full(3, NAN)).at(1.0)
    assert (mean, sd) == (1.0, pytest.approx(np.sqrt(4 / 3)))


def test_one_contest_alone_says_little():
    assert Level(np.array([0.7]), np.array([NAN])).at(NAN) == (0.7, UNKNOWN_SD)


def test_a_level_follows_ease_as_far_as_it_did_before():
    generator = np.random.default_rng(0)
    ease = generator.normal(0, 1, 40)
    for slope in (0.0, 0.8):
        level = Level(1.0 + slope * ease + generator.normal(0, 0.1, 40), ease)
        low, high = level.at(-2.0)[0], level.at(2.0)[0]
        assert (high - low) / 4 == pytest.approx(slope, abs=0.05)
        assert level.at(0.0)[1] == pytest.approx(0.1, abs=0.03)
        assert level.at(30.0)[1] > 3 * level.at(0.0)[1]


def test_an_unknown_ease_is_told_from_all_contests():
    level = Level(np.array([0.0, 1.0, 2.0, 7.0]), np.array([0.0, 1.0, 2.0, NAN]))
    assert level.at(NAN)[0] == 2.5
    assert level.at(1.0)[0] == pytest.approx(1.0)


def test_a_league_with_few_contests_takes_its_parents_line_and_an_offset():
    ease = np.linspace(-2, 2, 20)
    parent = Level(1.0 + 0.8 * ease, ease)
    alone = Level(np.array([]), np.array([]), parent)
    assert alone.at(1.0)[0] == pytest.approx(1.8, abs=0.01)
    assert alone.at(1.0)[1] == pytest.approx(OFFSET_SD, rel=0.05)
    seen = Level(np.array([2.0, 2.8]), np.array([0.0, 1.0]), parent)  # one above the line
    assert seen.at(-1.0)[0] == pytest.approx(1.2, abs=0.05)
    assert seen.at(-1.0)[1] < 0.5 * alone.at(-1.0)[1]


def test_a_league_with_many_contests_needs_no_parent():
    ease = np.linspace(-2, 2, ENOUGH)
    parent = Level(5.0 - ease, ease)
    assert Level(ease, ease, parent).at(1.0) == Level(ease, ease).at(1.0)


def test_it_covers_what_it_says():
    generator = np.random.default_rng(1)
    inside = []
    for _ in range(400):
        ease = generator.normal(0, 1, 8)
        levels = 0.6 * ease + generator.normal(0, 0.3, 8)
        mean, sd = Level(levels[:-1], ease[:-1]).at(ease[-1])
        inside.append(abs(levels[-1] - mean) < 1.645 * sd)
    assert np.mean(inside) == pytest.approx(0.88, abs=0.04)  # normal, of six degrees of freedom
