"""Which candidates to try on a task, in which order, within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import polars as pl
from fastapi import APIRouter, Query

from app.api.auth import Tenant
from app.api.estimates import estimates_of, interval_answer, needed
from app.api.forecasts import Forecasts
from app.api.limits import Within
from app.api.line import IN_LINE
from app.api.problems import problems
from app.api.resources import Reached, Reading
from app.api.schemas import CardRef, PlanAnswer, PlanStep, Share
from app.api.tasks import TaskIdPath
from app.api.weights import IsHere, weights_here
from app.catalogue import DEFAULT_DEVICE, DEFAULT_RECIPE, CandidateCard
from app.cost.cells import LOGIT_MARGIN
from app.cost.outcome_table import OutcomeTable
from app.cost.predictor import Estimate
from app.plan import OUT_OF_REACH, Draws, Plan, Step, Tried, make_plan
from app.store import tasks
from app.store.tables import Task
from app.words import share

router = APIRouter(tags=["estimates"])

METRIC = "accuracy"
WORLDS = 4_000
SEED = 0  # the same question has the same answer

WORTH_A_TRY = 0.5
"""Percentage points that a plan is expected to bring."""


@router.get(
    "/tasks/{task_id}/plan",
    response_model=PlanAnswer,
    responses=problems(404, 409),
    dependencies=[IN_LINE],
)
def get_plan(
    reached: Reached,
    task_id: TaskIdPath,
    tenant: Tenant,
    session: Reading,
    limits: Within,
    device: Annotated[CardRef, Query()] = DEFAULT_DEVICE,
    recipe: Annotated[CardRef, Query()] = DEFAULT_RECIPE,
    target: Annotated[Share | None, Query(description="accuracy, a share")] = None,
    tries: Annotated[int, Query(ge=1, le=20)] = 3,
    budget_usd: Annotated[float | None, Query(ge=0, allow_inf_nan=False)] = None,
    budget_seconds: Annotated[float | None, Query(ge=0, allow_inf_nan=False)] = None,
) -> PlanAnswer:
    """From the candidates that outcomes tell the accuracy of; report one, and ask again."""
    task = tasks.get_task(session, tenant, task_id)
    forecasts = Forecasts(reached, session, tenant)
    estimates, cards = estimates_of(session, tenant, task, forecasts, device, recipe)
    return plan_of(
        task,
        forecasts,
        limits.within(estimates, cards),
        cards,
        weights_here(session),
        device=device,
        recipe=recipe,
        target=target,
        tries=tries,
        budget_usd=budget_usd,
        budget_seconds=budget_seconds,
    )


def plan_of(
    task: Task,
    forecasts: Forecasts,
    estimates: Sequence[Estimate],
    cards: Mapping[str, CandidateCard],
    is_here: IsHere | None,
    *,
    device: str,
    recipe: str,
    target: float | None,
    tries: int,
    budget_usd: float | None,
    budget_seconds: float | None,
) -> PlanAnswer:
    """`estimates` and `cards` are what `estimates_of` tells of the task; what `estimates` leave out
    is not tried."""
    tried = _tried(forecasts.seen(task), recipe)
    joint = forecasts.joint(task, recipe, METRIC, cards.values())
    worlds = dict(zip(joint.models, joint.draws(WORLDS, SEED).T, strict=True)) if joint else {}
    sure = dict(zip(joint.models, joint.calibrated, strict=True)) if joint else {}
    choices = {estimate.candidate: estimate for estimate in estimates}
    told = [name for name in worlds if name in choices and name not in tried]
    plan = make_plan(
        [choices[name] for name in told],
        np.array([worlds[name] for name in told]).reshape(len(told), WORLDS).T,
        tried=_worth(tried, worlds),
        target=target,
        tries=tries,
        budget_usd=budget_usd,
        budget_seconds=budget_seconds,
        ceiling=1 - LOGIT_MARGIN,
    )
    return PlanAnswer(
        task=task.id,
        device=device,
        recipe=recipe,
        target=target,
        steps=[
            _step(step, is_here and is_here(cards[step.estimate.candidate])) for step in plan.steps
        ],
        best_so_far=max(tried.values(), default=None),
        tried=tried,
        reachable=plan.reachable,
        verdict=plan.verdict,
        says=_says(plan, target, tried, [choices[name] for name in told])
        if choices
        else "No candidate is within these limits.",
        unknown=len(choices.keys() - set(told) - tried.keys()),
        calibrated=bool(told) and all(sure[name] for name in told),
    )


def _worth(tried: Mapping[str, float], worlds: Mapping[str, Draws]) -> Tried | None:
    """As far as its images tell; what nothing else is known of, as it was measured."""
    if not tried:
        return None
    worth = [worlds.get(name, np.full(WORLDS, value)) for name, value in tried.items()]
    return Tried(max(tried.values()), np.max(worth, axis=0))


def _tried(seen: OutcomeTable | None, recipe: str) -> dict[str, float]:
    """The best that each candidate reached on the task under the recipe."""
    if seen is None:
        return {}
    of_recipe = seen.runs.filter(pl.col("recipe") == recipe, pl.col("metric") == METRIC)
    best = of_recipe.group_by("model").agg(pl.col("value").max()).sort("model")
    return dict(best.iter_rows())


def _step(step: Step, weights_are_here: bool | None) -> PlanStep:
    estimate = step.estimate
    return PlanStep(
        candidate=estimate.candidate,
        weights_here=weights_are_here,
        accuracy=interval_answer(estimate.accuracy),
        seconds=interval_answer(estimate.seconds),
        money_usd=interval_answer(estimate.money_usd),
        probability_best=step.best,
        probability_target=step.reaches,
        expected_accuracy=step.expected,
        expected_regret_points=step.regret,
        probability_target_by_now=step.reached,
        seconds_by_now=step.seconds,
        money_usd_by_now=step.money_usd,
    )


def _says(
    plan: Plan,
    target: float | None,
    tried: Mapping[str, float],
    told: Sequence[Estimate],
) -> str:
    """`told`: what is not tried yet and outcomes tell the accuracy of."""
    leader = max(tried, key=lambda name: tried[name], default="")
    goal = "" if target is None else share(target)
    if target is not None and tried and tried[leader] >= target:
        return f"The target of {goal} is reached: {leader}."
    if not (told or tried):
        return (
            "Outcomes tell the accuracy of no such candidate yet: report runs on two other tasks "
            "at least, or take the order of the estimates."
        )
    if plan.verdict == "out_of_reach":
        return (
            f"Nothing here will reach {goal}: the chance that any candidate does that "
            f"something is known of is below {OUT_OF_REACH:.0%}."
        )
    if not told:
        return "Every candidate that outcomes tell the accuracy of was tried."
    if plan.best is None:
        return f"No candidate fits the device and surely stays within the budget.{needed(told)}"
    if plan.gain is not None and plan.gain < WORTH_A_TRY:
        more = "one more try" if len(plan.steps) == 1 else f"{len(plan.steps)} more tries"
        first = f"More is hardly worth it: {more} would better {leader} by {plan.gain:.1f} points"
    else:
        first = (
            f"Try {plan.best.estimate.candidate} first: {plan.best.best:.0%} that it is the best "
            "of them"
        )
    if plan.reachable is None or target is None:
        return f"{first}."
    most = 1 - LOGIT_MARGIN
    goal += f" (or {share(most)}, as more is not told apart)" if target > most else ""
    return f"{first}. The chance that any candidate reaches {goal} is {plan.reachable:.0%}."
