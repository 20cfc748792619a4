"""The estimator fitted anew where outcomes came or were released: load, compute, apply.

A version is fitted to everything the tenant reported, judged task by task on what it did not see,
and serves unless it is worse than the one that serves now, by more than chance. Until then, and
after a refusal, the old one goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from app import __version__
from app.catalogue import CandidateCard
from app.cost.estimator import Estimator
from app.cost.evidence import Evidence
from app.cost.validation import Comparison, compared, judged_accuracy, judged_corrections
from app.store import cards, estimators, outcomes
from app.store.session import Database
from app.store.tables import PUBLIC, EstimatorVersion
from app.telemetry import log_event


def refresh(
    database: Database, shipped: Evidence, *, stop: Callable[[], bool] = lambda: False
) -> int:
    """Fits every estimator that is due, one after another; how many were fitted.

    `shipped`  evidence that every tenant's stands beside
    `stop`     whether to leave it at those fitted so far
    """
    with database.session(read_only=True) as session:
        due = estimators.due(session, shipped.digest)
    fitted = 0
    for tenant in due:
        if stop():
            break
        try:
            _refit(database, tenant, shipped)
            fitted += 1
        except Exception:  # one tenant's outcomes are no reason to leave the others' alone
            log_event("estimator.failed", level=logging.ERROR, tenant=tenant, exc_info=True)
    return fitted


def _refit(database: Database, tenant: str, shipped: Evidence) -> None:
    with database.session(read_only=True) as session:
        at = estimators.watermark(session, tenant)
        fitted_to = estimators.sources(session, tenant)
        evidence = _evidence(session, tenant, fitted_to)
        basis = estimators.basis(session, shipped.digest, tenant)
        shipped = estimators.beside(session, shipped, tenant)
        serving = estimators.latest(session, tenant, published=True, with_evidence=True)
        parameters = {
            card.name: card.parameters for card in cards.list_cards(session, tenant, CandidateCard)
        }
    before = estimators.evidence_of(serving) if serving else None
    estimator = Estimator(shipped.beside(evidence))
    comparison = compared(evidence, before, shipped) if before else None
    published = comparison is None or not comparison.worse
    version = EstimatorVersion(
        tenant=tenant,
        published=published,
        reason=_reason(before, comparison),
        newest=at.newest,
        n_quarantined=at.n_quarantined,
        n_outcomes=at.n_outcomes,
        n_tasks=evidence.runs["task"].n_unique(),
        n_candidates=evidence.runs["model"].n_unique(),
        calibration=estimators.calibration_as_json(estimator.calibration),
        report={
            estimators.SHIPPED_DIGEST: basis,
            **_report(evidence, estimator, comparison, parameters),
        },
        code_version=__version__,
    )
    with database.session() as session:
        if not estimators.add(session, version, evidence, fitted_to):
            return
    log_event(
        "estimator.fitted" if published else "estimator.refused",
        tenant=tenant,
        version=version.version,
        outcomes=version.n_outcomes,
        tasks=version.n_tasks,
    )


def _evidence(session: Session, tenant: str, sources: list[str]) -> Evidence:
    if tenant != PUBLIC:
        return outcomes.evidence(session, tenant)
    candidates = [card.name for card in cards.list_cards(session, PUBLIC, CandidateCard)]
    shared = Evidence.of([])
    for each in sources:
        shared = shared.beside(outcomes.evidence(session, each).shared(each, candidates))
    return shared


def _reason(before: Evidence | None, comparison: Comparison | None) -> str:
    if before is None:
        return "The first one."
    if comparison is None:
        return "Outcomes are too few to compare it with the one before."
    figures = (
        f"{comparison.difference:+.3f} [{comparison.low:+.3f}, {comparison.high:+.3f}] in mean "
        f"absolute error of accuracy (logits) on {comparison.n_tasks} tasks left out"
    )
    if comparison.worse:
        return f"Worse than the one before: {figures}. Look at the outcomes reported since."
    return f"Not worse than the one before: {figures}."


def _report(
    evidence: Evidence,
    estimator: Estimator,
    comparison: Comparison | None,
    parameters: Mapping[str, int],
) -> dict[str, Any]:
    evaluation = judged_accuracy(evidence, parameters)
    corrections = judged_corrections(estimator.corrections)
    return {
        "accuracy": asdict(evaluation) if evaluation else None,
        "corrections": {name: asdict(report) for name, report in corrections.items()},
        "comparison": asdict(comparison) if comparison else None,
    }
