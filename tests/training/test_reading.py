"""What the course of information says, and that it says no more than that."""

from __future__ import annotations

import pytest

from app.training.reading import LEAST_TRACES, said_of


def test_what_has_fallen_since_its_height_is_told_with_a_caveat() -> None:
    said = said_of({1: 10.0, 3: 200.0, 5: 90.0, 7: 40.0, 9: 20.0})
    assert said is not None
    assert "rose until epoch 3 and has fallen to 10%" in said
    assert "some that learn by heart end so too" in said


@pytest.mark.parametrize("last", [400.0, 120.0])
def test_what_is_still_near_its_height_has_not_settled_whatever_it_learns(last: float) -> None:
    said = said_of({1: 10.0, 2: 50.0, 3: 100.0, 4: 200.0, 5: last})
    assert said is not None
    assert said.startswith("The information in the weights is still at")
    assert "some that learn images by heart: only held-out accuracy tells" in said


def test_few_traces_say_nothing() -> None:
    assert said_of(dict.fromkeys(range(LEAST_TRACES - 1), 1.0)) is None


def test_a_network_that_hangs_on_nothing_is_no_division_by_zero() -> None:
    assert said_of(dict.fromkeys(range(5), 0.0)) is not None
