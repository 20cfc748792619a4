"""What fine-tuning each candidate on a task would cost and give, best first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.api import formats
from app.api.auth import Tenant
from app.api.forecasts import Forecasts
from app.api.limits import Within
from app.api.line import IN_LINE
from app.api.neighbours import TableFormat
from app.api.problems import problems
from app.api.resources import Reached, Reading
from app.api.schemas import CardRef, EstimateRow, EstimatesAnswer, IntervalAnswer
from app.api.tasks import TaskIdPath, present_embedding
from app.api.weights import IsHere, weights_here
from app.catalogue import DEFAULT_DEVICE, DEFAULT_RECIPE, CandidateCard, DeviceCard, RecipeCard
from app.cost.cells import RIDGE
from app.cost.correction import Setting
from app.cost.predictor import Estimate, Interval, TaskFacts, estimate
from app.embedding.distance import one_to_many
from app.embedding.vector import TaskEmbedding
from app.recommend import RankedEstimate, rank
from app.store import cards, embeddings, reference, tasks
from app.store.tables import Embedding, Task
from app.words import duration, money

router = APIRouter(tags=["estimates"])

_INTERVALS = (
    *("accuracy", "steps", "seconds", "money_usd", "energy_wh", "memory_mib"),
    "inference_seconds",
)


@router.get(
    "/tasks/{task_id}/estimates",
    response_model=EstimatesAnswer,
    responses={200: formats.also("csv"), **problems(404, 409)},
    dependencies=[IN_LINE],
)
def get_estimates(
    request: Request,
    reached: Reached,
    task_id: TaskIdPath,
    tenant: Tenant,
    session: Reading,
    limits: Within,
    device: Annotated[CardRef, Query()] = DEFAULT_DEVICE,
    recipe: Annotated[CardRef, Query()] = DEFAULT_RECIPE,
    k: Annotated[int | None, Query(ge=1, le=1000, description="rows; all without it")] = None,
    budget_usd: Annotated[float | None, Query(ge=0, allow_inf_nan=False)] = None,
    budget_seconds: Annotated[float | None, Query(ge=0, allow_inf_nan=False)] = None,
    wanted: TableFormat = None,
) -> EstimatesAnswer | Response:
    """One row per candidate, each saying what its numbers rest on."""
    task = tasks.get_task(session, tenant, task_id)
    forecasts = Forecasts(reached, session, tenant)
    estimates, by_name = estimates_of(session, tenant, task, forecasts, device, recipe)
    allowed = limits.within(estimates, by_name)
    rows = rows_of(
        allowed,
        by_name,
        weights_here(session),
        k=k,
        budget_usd=budget_usd,
        budget_seconds=budget_seconds,
    )
    if formats.choose(request, wanted, ("json", "csv")) == "csv":
        return _csv(rows)
    return EstimatesAnswer(
        task=task.id,
        device=device,
        recipe=recipe,
        estimates=rows,
        says=None if rows else f"No candidate stays within the limits.{needed(allowed)}",
    )


def rows_of(
    estimates: Sequence[Estimate],
    cards: Mapping[str, CandidateCard],
    is_here: IsHere | None,
    *,
    k: int | None = None,
    budget_usd: float | None,
    budget_seconds: float | None,
) -> list[EstimateRow]:
    """What surely stays within the budgets, best first."""
    ranking = rank(estimates, k=k, budget_usd=budget_usd, budget_seconds=budget_seconds)
    return [_row(ranked, cards[ranked.estimate.candidate], is_here) for ranked in ranking]


def needed(estimates: Sequence[Estimate]) -> str:
    """What the cheapest would take, for whoever's budget allows none; nothing where there is none
    that fits the device."""
    fitting = [each for each in estimates if each.fits]
    if not fitting:
        return ""
    least = min(fitting, key=lambda each: (each.money_usd.high, each.seconds.high))
    return (
        f" The cheapest, {least.candidate}, may take up to {money(least.money_usd.high)} and "
        f"{duration(least.seconds.high)}."
    )


def estimates_of(
    session: Session, tenant: str, task: Task, forecasts: Forecasts, device: str, recipe: str
) -> tuple[list[Estimate], dict[str, CandidateCard]]:
    """Of every candidate, and their cards by name."""
    embedding = embeddings.load(session, present_embedding(task))
    device_card = cards.get_card(session, tenant, DeviceCard, device)
    recipe_card = cards.get_card(session, tenant, RecipeCard, recipe)
    by_name = {card.name: card for card in cards.list_cards(session, tenant, CandidateCard)}
    difficulties = _difficulties(session, tenant, embedding, by_name.values())
    facts = facts_of(task, embedding.complexity)
    accuracies = forecasts.accuracies(task, recipe, "accuracy", by_name.values())
    scores = forecasts.scores(task)
    estimates = [
        estimate(
            facts,
            card,
            recipe_card,
            device_card,
            difficulty=difficulties.get(card.source_task),
            accuracy=accuracies.get(card.name),
            ridge_accuracy=scores.get(card.name, {}).get(RIDGE),
            factors=forecasts.factors(Setting(task.id, card.name, recipe, device)),
            timing=forecasts.timing(device, card.name),
        )
        for card in by_name.values()
    ]
    return estimates, by_name


def facts_of(task: Task, complexity: float | None) -> TaskFacts:
    return TaskFacts(
        n_images=task.n_images or 0,
        n_classes=task.n_classes or 0,
        complexity=complexity,
        label_kind="multi_label" if task.label_kind == "multi_label" else "single_label",
        mean_pixels=(task.intake_summary or {}).get("mean_pixels"),
    )


def _difficulties(
    session: Session, tenant: str, target: TaskEmbedding, candidates: Iterable[CandidateCard]
) -> dict[str | None, float]:
    """Asymmetric distance to the task from each source task that has an embedding in its space."""
    trivial = reference.trivial(session, target.space_id)
    named = {card.source_task for card in candidates if card.source_task is not None}
    if trivial is None or not named:
        return {}
    found = session.execute(
        select(Task.id, Embedding.seq)
        .join(Embedding, Task.embedding_seq == Embedding.seq)
        .where(
            Task.id.in_(named),
            Embedding.space_id == target.space_id,
            tasks.readable_by(tenant),
        )
    ).all()
    if not found:
        return {}
    sources = embeddings.matrix(session, [seq for _, seq in found])
    distances = one_to_many(
        target.vector, sources, "asymmetric", epsilon=target.epsilon, trivial=trivial
    )
    return {task_id: float(d) for (task_id, _), d in zip(found, distances, strict=True)}


def _row(ranked: RankedEstimate, card: CandidateCard, is_here: IsHere | None) -> EstimateRow:
    row = ranked.estimate
    return EstimateRow(
        rank=ranked.rank,
        candidate=row.candidate,
        family=card.family,
        parameters=card.parameters,
        recipe=row.recipe,
        device=row.device,
        fits=row.fits,
        fitting_batch_size=row.fitting_batch_size,
        top1_percent=row.top1_percent,
        difficulty=row.difficulty,
        ridge_accuracy=row.ridge_accuracy,
        source_task=card.source_task,
        evidence=ranked.evidence,
        frontier=ranked.frontier,
        reason=ranked.reason,
        basis=row.basis,
        calibrated=row.calibrated,
        timed=row.timed,
        weights_here=is_here and is_here(card),
        **{name: interval_answer(getattr(row, name)) for name in _INTERVALS},
    )


def interval_answer(interval: Interval | None) -> IntervalAnswer | None:
    if interval is None:
        return None
    return IntervalAnswer(
        low=interval.low, typical=interval.typical, high=interval.high, kind=interval.kind
    )


def _csv(rows: list[EstimateRow]) -> Response:
    bounds = ("low", "typical", "high")
    plain = [name for name in EstimateRow.model_fields if name not in (*_INTERVALS, "basis")]
    columns = [f"{name}_{bound}" for name in _INTERVALS for bound in bounds]
    return formats.csv_response(
        [*plain, *columns, "basis"],
        (
            [
                *(getattr(row, name) for name in plain),
                *(
                    getattr(getattr(row, name), bound, None)
                    for name in _INTERVALS
                    for bound in bounds
                ),
                " | ".join(row.basis),
            ]
            for row in rows
        ),
    )
