"""Which candidates to try on a task, in which order, and what may come of it. Pure.

Given draws of what the candidates may reach together, the next one to try is always that with which
the best one tried is expected to be best: of two candidates that succeed and fail together, the
second adds little. Every draw is a world; probabilities and expectations are shares and means over
them. What was tried before costs nothing more; how good it is, is known as far as it was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.cost.predictor import Estimate

Draws = npt.NDArray[np.float64]
Verdict = Literal["no_target", "likely", "doubtful", "out_of_reach", "unknown"]

LIKELY = 0.5
OUT_OF_REACH = 0.05
"""Chance below which nothing here is said to reach the target."""

POINTS = 100.0
DECIMALS = 4  # a hundredth of a point


@dataclass(frozen=True, slots=True)
class Step:
    """One try, and where it leads with all before it.

    `best`      the chance that of all candidates this one would reach most
    `reaches`   the chance that this one alone reaches the target
    `expected`  accuracy of the best one tried so far
    `regret`    percentage points that it is expected to lie below the best of all candidates
    `reached`   the chance that the target is reached by now
    `seconds`, `money_usd`  typical, of all tries so far
    """

    estimate: Estimate
    best: float
    reaches: float | None
    expected: float
    regret: float
    reached: float | None
    seconds: float
    money_usd: float


@dataclass(frozen=True, slots=True)
class Tried:
    """The best that was tried before: as it was measured, and (S,) its worth in each world."""

    value: float
    worth: Draws


@dataclass(frozen=True, slots=True)
class Plan:
    """`best`: the first step; `reachable`: the chance that any of the choices reaches the target,
    whatever it costs, or one did before; `gain`: percentage points by which all steps together are
    expected to better what was tried before."""

    steps: tuple[Step, ...]
    best: Step | None
    reachable: float | None
    verdict: Verdict
    gain: float | None


def make_plan(
    choices: Sequence[Estimate],
    draws: Draws,
    *,
    tried: Tried | None = None,
    target: float | None = None,
    tries: int,
    budget_usd: float | None = None,
    budget_seconds: float | None = None,
    ceiling: float = 1.0,
) -> Plan:
    """At most `tries` steps that surely stay within budget together: high ends count.

    `choices`  not tried yet; `draws` (S, n) what they may reach, shares
    `ceiling`  draws above it are not told apart: they may reach any target
    """
    wanted = None if target is None else min(target, ceiling)
    start = np.full(len(draws), -np.inf) if tried is None else tried.worth
    before = start
    of_all = np.maximum(before, draws.max(axis=1, initial=-np.inf))
    settled = tried is not None and target is not None and tried.value >= target
    reachable = None
    if settled:
        reachable = 1.0
    elif wanted is not None and choices:
        reachable = float((of_all >= wanted).mean())
    allowed = [number for number, choice in enumerate(choices) if choice.fits]
    steps: list[Step] = []
    spent = Spent()
    while len(steps) < tries:
        left = [n for n in allowed if spent.allows(choices[n], budget_usd, budget_seconds)]
        if not left:
            break
        number = max(left, key=lambda n: _promise(before, draws[:, n]))
        allowed.remove(number)
        before = np.maximum(before, draws[:, number])
        spent = spent.after(choices[number])
        steps.append(
            Step(
                estimate=choices[number],
                best=float((draws[:, number] >= of_all).mean()),
                reaches=None if wanted is None else float((draws[:, number] >= wanted).mean()),
                expected=float(before.mean()),
                regret=POINTS * float((of_all - before).mean()),
                reached=None if wanted is None else float((before >= wanted).mean()),
                seconds=spent.seconds,
                money_usd=spent.money_usd,
            )
        )
    return Plan(
        tuple(steps),
        steps[0] if steps else None,
        reachable,
        _verdict(reachable, asked=target is not None, anything=bool(choices) or settled),
        gain=None if tried is None else POINTS * float((before - start).mean()),
    )


def _promise(before: Draws, draws: Draws) -> tuple[float, float]:
    """The best one's expectation with this one too; where it adds nothing, its own."""
    with_it = float(np.maximum(before, draws).mean())
    return round(with_it, DECIMALS), float(draws.mean())


def _verdict(reachable: float | None, *, asked: bool, anything: bool) -> Verdict:
    if not anything:
        return "unknown"
    if reachable is None or not asked:
        return "no_target"
    if reachable < OUT_OF_REACH:
        return "out_of_reach"
    return "likely" if reachable >= LIKELY else "doubtful"


@dataclass(frozen=True, slots=True)
class Spent:
    """Typical and highest cost of the tries so far."""

    seconds: float = 0.0
    money_usd: float = 0.0
    most_seconds: float = 0.0
    most_usd: float = 0.0

    def after(self, choice: Estimate) -> Spent:
        return Spent(
            self.seconds + choice.seconds.typical,
            self.money_usd + choice.money_usd.typical,
            self.most_seconds + choice.seconds.high,
            self.most_usd + choice.money_usd.high,
        )

    def allows(
        self, choice: Estimate, budget_usd: float | None, budget_seconds: float | None
    ) -> bool:
        after = self.after(choice)
        return (budget_usd is None or after.most_usd <= budget_usd) and (
            budget_seconds is None or after.most_seconds <= budget_seconds
        )
