"""How high candidates come on a task at all: the level of a contest, logits.

A task that simple classifiers on the candidates' features answer well, or the probe's own head, is
one that most candidates answer well. So a level is expected at

    base + slope * (ease - mean ease)

by least squares with a normal prior on the slope, for the best measure of ease that is known of the
contest and of many others; where none is, at the mean, with as much more doubt. Where a league
has few contests of its own and a parent with many, the line is the parent's, and all of it too high
or too low by an offset that the few tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.cost.cells import Floats

UNKNOWN_SD = 1.0
"""Of a level whose league has fewer than two contests."""

SLOPE, SLOPE_SD = 0.5, 0.5
"""Before any is seen: an ease says something, and neither nothing nor all."""

OFFSET_SD = 0.5
"""By how much a league lies above or below its parent: another input size, another schedule."""

ENOUGH = 8
"""Contests from which a league needs no parent, and a measure of ease no other."""

LEAST_KNOWN = 3
LEAST_SD = 1e-3


class Level:
    """Of the contests of a league: their levels (t,), and how easy their tasks are by k measures
    (t, k), logits, the best first, nan where that is not known."""

    def __init__(self, levels: Floats, ease: Floats, parent: Level | None = None) -> None:
        n = len(levels)
        self._parent = parent if n < ENOUGH else None
        if self._parent is not None:
            self._offset, self._offset_variance = self._parent.offset_of(levels, ease)
            return
        self._base = float(levels.mean())
        # Of a new contest about a mean that is uncertain itself.
        spread = float(np.std(levels, ddof=1)) * np.sqrt(1 + 1 / n) if n > 1 else UNKNOWN_SD
        self._sd = max(spread, LEAST_SD)
        lines = [_line(levels, measure) for measure in ease.T]
        # The best that enough contests know, else the one that most do.
        self._lines = sorted(enumerate(lines), key=lambda at: -min(at[1].n if at[1] else 0, ENOUGH))

    def at(self, ease: Floats) -> tuple[float, float]:
        """Mean and standard deviation of a new contest's level; `ease` (k,)."""
        if self._parent is not None:
            mean, sd = self._parent.at(ease)
            return mean + self._offset, float(np.sqrt(sd**2 + self._offset_variance))
        for measure, line in self._lines:
            if line is not None and np.isfinite(ease[measure]):
                return line.at(float(ease[measure]))
        return self._base, self._sd

    def offset_of(self, levels: Floats, ease: Floats) -> tuple[float, float]:
        """Of another league's contests from this one's line: mean and variance of what is left to
        know, contests being as far off as this league's are."""
        expected = np.array([self.at(each) for each in ease]).reshape(len(levels), 2)
        precision = expected[:, 1] ** -2.0
        total = float(precision.sum()) + OFFSET_SD**-2
        return float(precision @ (levels - expected[:, 0])) / total, 1 / total


@dataclass(frozen=True, slots=True)
class _Line:
    """`precision`: of the slope, in variances of `noise`, which lies about the line."""

    n: int
    middle: float
    base: float
    slope: float
    precision: float
    noise: float

    def at(self, ease: float) -> tuple[float, float]:
        away = ease - self.middle
        variance = self.noise * (1 + 1 / self.n + away**2 / self.precision)
        return self.base + self.slope * away, max(float(np.sqrt(variance)), LEAST_SD)


def _line(levels: Floats, ease: Floats) -> _Line | None:
    """None where too few eases are known."""
    known = np.isfinite(ease)
    n = int(known.sum())
    if n < LEAST_KNOWN:
        return None
    middle, base = float(ease[known].mean()), float(levels[known].mean())
    x, y = ease[known] - middle, levels[known] - base
    noise = float(y @ y) / (n - 1)
    for _ in range(2):  # the doubt about the slope depends on the noise about the line
        own = max(noise, LEAST_SD**2) / SLOPE_SD**2
        precision = float(x @ x) + own
        slope = float(x @ y + own * SLOPE) / precision
        noise = float(np.sum((y - slope * x) ** 2)) / (n - 2)
    return _Line(n, middle, base, slope, precision, noise)
