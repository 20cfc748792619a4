"""Estimates -> a ranked plan. Pure: nothing is predicted here, only put in order and explained.

The order, best first:

1. what fits the device's memory before what does not;
2. by the best evidence of strength there is, and within one kind of evidence the strongest first:
   predicted accuracy, else difficulty for this task (lower is stronger), else published top-1
   accuracy, which is a prior and knows nothing of the task, else nothing;
3. cheaper first; then by name, so that the same estimates always come in the same order.

Strengths are compared within one kind of evidence only: a distance says nothing about a percentage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.cost.predictor import Estimate

Evidence = Literal["accuracy", "difficulty", "top1_percent", "none"]

_EVIDENCE_ORDER: tuple[Evidence, ...] = ("accuracy", "difficulty", "top1_percent", "none")

_REASONS: dict[Evidence, str] = {
    "accuracy": "by predicted accuracy",
    "difficulty": "by the difficulty of this task for it",
    "top1_percent": "by published ImageNet-1k accuracy, a prior that knows nothing of this task",
    "none": "nothing is known of its strength",
}


@dataclass(frozen=True, slots=True)
class RankedEstimate:
    """`frontier`: it fits, and of the others that fit none is as cheap and as strong, and better in
    one of the two. What nothing is known of stands on no frontier.
    """

    rank: int
    estimate: Estimate
    evidence: Evidence
    frontier: bool
    reason: str


def rank(
    estimates: Sequence[Estimate],
    *,
    k: int | None = None,
    budget_usd: float | None = None,
    budget_seconds: float | None = None,
) -> list[RankedEstimate]:
    """The first `k` of those that surely stay within budget: the high end of their range counts."""
    within = [
        estimate
        for estimate in estimates
        if (budget_usd is None or estimate.money_usd.high <= budget_usd)
        and (budget_seconds is None or estimate.seconds.high <= budget_seconds)
    ]
    ordered = sorted(within, key=_order)
    return [
        RankedEstimate(
            rank=position,
            estimate=estimate,
            evidence=_strength(estimate)[0],
            frontier=_on_frontier(estimate, within),
            reason=_reason(estimate),
        )
        for position, estimate in enumerate(ordered[:k], start=1)
    ]


def _order(estimate: Estimate) -> tuple[object, ...]:
    evidence, strength = _strength(estimate)
    return (
        not estimate.fits,
        _EVIDENCE_ORDER.index(evidence),
        -strength,
        _cost(estimate),
        (estimate.candidate, estimate.recipe, estimate.device),
    )


def _strength(estimate: Estimate) -> tuple[Evidence, float]:
    """The best evidence there is, and a number that is higher for the stronger."""
    if estimate.accuracy is not None:
        return "accuracy", estimate.accuracy.typical
    if estimate.difficulty is not None:
        return "difficulty", -estimate.difficulty
    if estimate.top1_percent is not None:
        return "top1_percent", estimate.top1_percent
    return "none", 0.0


def _cost(estimate: Estimate) -> tuple[float, float]:
    """Money, and time where money is equal or nothing is paid."""
    return estimate.money_usd.typical, estimate.seconds.typical


def _on_frontier(estimate: Estimate, others: Sequence[Estimate]) -> bool:
    evidence, strength = _strength(estimate)
    if not estimate.fits or evidence == "none":
        return False
    here = _cost(estimate), -strength
    for other in others:
        other_evidence, other_strength = _strength(other)
        there = _cost(other), -other_strength
        no_worse = there[0] <= here[0] and there[1] <= here[1]
        if other.fits and other_evidence == evidence and no_worse and there != here:
            return False
    return True


def _reason(estimate: Estimate) -> str:
    reason = _REASONS[_strength(estimate)[0]]
    if estimate.fits:
        return reason
    batch = estimate.fitting_batch_size
    smaller = f"a batch of {batch} would" if batch else "no batch does"
    return f"{reason}; does not fit {estimate.device}, {smaller}"
