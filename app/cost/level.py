"""How high candidates come on a task at all: the level of a contest, logits.

A task that simple classifiers on the candidates' features answer well, or the probe's own head, is
one that most candidates answer well. So a level is expected at

    base + slope * (ease - mean ease)

by least squares with a normal prior on the slope, for the best measure of ease that is known of the
contest and of many others; where none is, at the mean, with as much more doubt. Where a league has
a parent, the parent's line is what is expected of its own: contests tell how much higher it lies
and how much steeper it is (Bayesian linear regression; the noise about it is the parent's until
they tell another), so that few move it little and many make it theirs. Each tells as far as its
outcomes do: a level that was measured by one candidate on few images moves less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.cost.cells import LEAST_SD, Floats

UNKNOWN_SD = 1.0
"""Of a level whose league has fewer than two contests."""

SLOPE, SLOPE_SD = 0.5, 0.5
"""Before any is seen: an ease says something, and neither nothing nor all."""

OFFSET_SD = 0.5
"""By how much a league lies above or below its parent: another input size, another schedule."""

ENOUGH = 8
"""Contests from which a measure of ease needs no other; of own ones, as many as the parent's noise
counts for."""

ROUNDS = 8
"""Two where nothing is measured; where much is, the noise is told apart from it slowly."""

LEAST_KNOWN = 3


class Level:
    """Of the contests of a league: their levels (t,), and how easy their tasks are by k measures
    (t, k), logits, the best first, nan where that is not known.

    `measured`  (t,) variances of the levels over other candidates and images to measure them by; a
                league with a parent counts with them
    """

    def __init__(
        self, levels: Floats, ease: Floats, measured: Floats, parent: Level | None = None
    ) -> None:
        self._own = None if parent is None else _Departure.of(levels, ease, measured, parent)
        self._parent = parent
        if parent is not None:
            return
        n = len(levels)
        self._base = float(levels.mean())
        # Of a new contest about a mean that is uncertain itself.
        spread = float(np.std(levels, ddof=1)) * np.sqrt(1 + 1 / n) if n > 1 else UNKNOWN_SD
        self._sd = max(spread, LEAST_SD)
        lines = [_line(levels, measure) for measure in ease.T]
        # The best that enough contests know, else the one that most do.
        self._lines = sorted(enumerate(lines), key=lambda at: -min(at[1].n if at[1] else 0, ENOUGH))

    def at(self, ease: Floats) -> tuple[float, float]:
        """Mean and standard deviation of a new contest's level; `ease` (k,)."""
        expected = self.expected(ease)
        if self._own is None:
            return expected.mean, float(np.sqrt(expected.doubt + expected.noise))
        away, own = expected.away, self._own
        variance = expected.doubt + away @ own.covariance @ away + own.noise * expected.noise
        return expected.mean + float(away @ own.shift), float(np.sqrt(variance))

    def expected(self, ease: Floats) -> _Expected:
        """By the lines of the league itself, or of its parent where it has one."""
        if self._parent is not None:
            return self._parent.expected(ease)
        away = np.zeros(1 + len(ease))
        away[0] = 1.0
        for measure, line in self._lines:
            if line is not None and np.isfinite(ease[measure]):
                away[1 + measure] = float(ease[measure]) - line.middle
                mean, variance = line.at(float(ease[measure]))
                noise = max(line.noise, LEAST_SD**2)
                return _Expected(mean, max(variance - noise, 0.0), noise, away)
        return _Expected(self._base, 0.0, self._sd**2, away)


@dataclass(frozen=True, slots=True)
class _Expected:
    """`doubt` about the `mean` and the `noise` of contests about it, variances; `away` (1 + k,): 1,
    and how far the ease that told it lies from the middle of its measure."""

    mean: float
    doubt: float
    noise: float
    away: Floats


@dataclass(frozen=True, slots=True)
class _Departure:
    """Of a league from its parent: `shift` (1 + k,), how much higher it lies, and how much steeper
    in each measure; their `covariance`; and its `noise`, as a share of the parent's variance."""

    shift: Floats
    covariance: Floats
    noise: float

    @classmethod
    def of(cls, levels: Floats, ease: Floats, measured: Floats, parent: Level) -> _Departure:
        each = [parent.expected(row) for row in ease]
        size = 1 + ease.shape[1]
        spread = np.array([one.noise for one in each])
        away = np.array([one.away for one in each]).reshape(len(each), size)
        rest = levels - np.array([one.mean for one in each])
        prior = np.diag([OFFSET_SD**-2, *[SLOPE_SD**-2] * (size - 1)])
        noise = 1.0
        for _ in range(ROUNDS):  # the doubt about the shift depends on the noise that it leaves
            weighted = away / (noise * spread + measured)[:, None]
            covariance = np.asarray(np.linalg.inv(weighted.T @ away + prior))
            shift: Floats = covariance @ (weighted.T @ rest)
            # Of what is left, the part that is not measurement, and its variance (one step of EM).
            share = noise * spread / (noise * spread + measured)
            left = (share * (rest - away @ shift)) ** 2 + share * measured
            noise = (ENOUGH + float(np.sum(left / spread))) / (ENOUGH + len(each))
        return cls(shift, covariance, noise)


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
        """Mean and variance of a contest's level."""
        away = ease - self.middle
        variance = self.noise * (1 + 1 / self.n + away**2 / self.precision)
        return self.base + self.slope * away, max(variance, LEAST_SD**2)


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
