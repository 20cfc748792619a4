"""Where intervals lie on the rails of a table, so that its rows compare at a glance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.api.schemas import IntervalAnswer


@dataclass(frozen=True, slots=True)
class Bar:
    """Shares of the rail, from 0 to 1."""

    low: float
    typical: float
    high: float


Bars = list[Bar | None]


def linear(intervals: Sequence[IntervalAnswer | None], least: float, most: float) -> Bars:
    return _bars(intervals, lambda value: (value - least) / (most - least))


def logarithmic(intervals: Sequence[IntervalAnswer]) -> Bars:
    """From the least to the most of all: what takes ten times as long lies as far to the right
    wherever it begins. Nothing above zero: all on the left."""
    ends = [end for each in intervals for end in (each.low, each.high) if end > 0]
    if not ends or max(ends) == min(ends):
        return _bars(intervals, lambda _: 0.0)
    least, width = math.log(min(ends)), math.log(max(ends) / min(ends))
    return _bars(intervals, lambda value: (math.log(value) - least) / width if value > 0 else 0.0)


def _bars(intervals: Sequence[IntervalAnswer | None], place: Callable[[float], float]) -> Bars:
    def within(value: float) -> float:
        return round(min(max(place(value), 0.0), 1.0), 4)

    return [
        None if each is None else Bar(within(each.low), within(each.typical), within(each.high))
        for each in intervals
    ]
