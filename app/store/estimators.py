"""Versions of the estimator: which are due, which serve, and the fitted ones of this process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, undefer

from app import __version__
from app.catalogue import CandidateCard, load_cards
from app.cost.estimator import Calibration, Estimator
from app.cost.evidence import COUNTED, Evidence
from app.store.session import hold
from app.store.tables import EstimatorVersion, Outcome

SHIPPED_DIGEST = "shipped_digest"
"""Key of a version's report: of the shipped outcomes that stood beside the tenant's."""

_TENANTS = select(Outcome.tenant).distinct().order_by(Outcome.tenant)


@dataclass(frozen=True, slots=True)
class Watermark:
    """Changes with what can be learnt from: the newest outcome, how many are in quarantine, and how
    many are not, for an older one may be committed later."""

    newest: int
    n_quarantined: int
    n_outcomes: int


def shipped(models_dir: Path) -> Evidence:
    """Outcomes of candidates with cards that come with the service."""
    path = models_dir / "outcomes" / "grid.csv"
    return Evidence.shipped(path, load_cards(models_dir, CandidateCard).keys())


def due(session: Session, shipped_digest: str) -> list[str]:
    """Tenants whose outcomes changed since an estimator was last fitted to them, or whose estimator
    another version of the service fitted, or beside other shipped outcomes."""
    tenants = session.scalars(_TENANTS)
    return [tenant for tenant in tenants if is_due(session, tenant, shipped_digest)]


def is_due(session: Session, tenant: str, shipped_digest: str) -> bool:
    last = latest(session, tenant, published=False)
    at = watermark(session, tenant)
    if last is None:
        return at.newest > 0
    fitted = Watermark(last.newest, last.n_quarantined, last.n_outcomes)
    fitted_by = (last.code_version, last.report.get(SHIPPED_DIGEST))
    return at != fitted or fitted_by != (__version__, shipped_digest)


def watermark(session: Session, tenant: str) -> Watermark:
    aside = func.count().filter(Outcome.quarantine.is_not(None))
    used = func.count().filter(Outcome.quarantine.is_(None))
    newest = func.coalesce(func.max(Outcome.seq), 0)
    row = session.execute(select(newest, aside, used).where(Outcome.tenant == tenant)).one()
    return Watermark(*row)


def latest(
    session: Session, tenant: str, *, published: bool, with_evidence: bool = False
) -> EstimatorVersion | None:
    """The tenant's newest version, or the newest one that serves."""
    query = select(EstimatorVersion).where(EstimatorVersion.tenant == tenant)
    if published:
        query = query.where(EstimatorVersion.published)
    if with_evidence:
        query = query.options(undefer(EstimatorVersion.evidence))
    query = query.order_by(EstimatorVersion.version.desc()).limit(1)
    return session.scalar(query, execution_options={"populate_existing": True})


def add(session: Session, version: EstimatorVersion, evidence: Evidence) -> bool:
    """As the tenant's next version; where it serves, its predecessors give up their evidence.

    Not where outcomes that it was fitted to were deleted meanwhile: then another one is due.
    """
    _hold(session, version.tenant)
    at = watermark(session, version.tenant)
    if at.n_outcomes + at.n_quarantined < version.n_outcomes + version.n_quarantined:
        return False
    highest = select(func.coalesce(func.max(EstimatorVersion.version), 0)).where(
        EstimatorVersion.tenant == version.tenant
    )
    version.version = session.scalars(highest).one() + 1
    if version.published:
        version.evidence = evidence.to_parquet()
        session.execute(
            update(EstimatorVersion)
            .where(EstimatorVersion.tenant == version.tenant)
            .values(evidence=None)
        )
    session.add(version)
    session.flush()
    return True


def forget_outcomes(session: Session, tenant: str, task: str) -> None:
    """Deletes those of a task; versions that may have been fitted to them serve no more."""
    _hold(session, tenant)
    own = (Outcome.tenant == tenant, Outcome.task == task)
    if session.scalars(delete(Outcome).where(*own).returning(Outcome.seq)).all():
        withdraw(session, tenant, "Outcomes that it was fitted to were deleted.")


def withdraw(session: Session, tenant: str, reason: str) -> None:
    """No version of the tenant's serves any more, nor tells of tasks: the next is published
    whatever it is like."""
    nothing: dict[str, Any] = {"accuracy": None, "corrections": {}, "comparison": None}
    session.execute(
        update(EstimatorVersion)
        .where(EstimatorVersion.tenant == tenant)
        .values(published=False, evidence=None, report=nothing, reason=reason)
    )


def _hold(session: Session, tenant: str) -> None:
    """Until the unit of work ends, no version is added and no outcome deleted."""
    hold(session, f"estimator of {tenant}")


def evidence_of(version: EstimatorVersion) -> Evidence:
    if version.evidence is None:
        raise ValueError(f"version {version.version} serves no more")
    return Evidence.from_parquet(version.evidence)


def calibration_as_json(calibration: Calibration) -> dict[str, Any]:
    """None for what is infinite, which JSON has no word for."""
    numbers = {"accuracy": calibration.deviations}
    numbers |= {name: calibration.halves[name] for name in COUNTED}
    return {name: number if isfinite(number) else None for name, number in numbers.items()}


def calibration_from(kept: dict[str, Any]) -> Calibration:
    numbers = {name: inf if kept[name] is None else kept[name] for name in ("accuracy", *COUNTED)}
    return Calibration(numbers["accuracy"], {name: numbers[name] for name in COUNTED})


class Estimators:
    """The fitted estimators of a process: the newest published version of each tenant's, and that
    of shipped outcomes alone for who has none."""

    def __init__(self, shipped: Evidence) -> None:
        self._shipped = shipped
        self.shipped_digest = shipped.digest
        self._nobodys = Estimator(shipped)
        self._fitted: dict[str, tuple[int, Estimator]] = {}
        self._mutex = threading.Lock()

    def of(self, session: Session, tenant: str) -> Estimator:
        version = latest(session, tenant, published=True)
        if version is None:
            return self._nobodys
        with self._mutex:
            seq, estimator = self._fitted.get(tenant, (0, self._nobodys))
        if seq != version.seq:
            # Read again with its evidence, together: a successor may have taken it meanwhile.
            version = latest(session, tenant, published=True, with_evidence=True) or version
            evidence = self._shipped.beside(evidence_of(version))
            estimator = Estimator(evidence, calibration_from(version.calibration))
            with self._mutex:
                self._fitted[tenant] = version.seq, estimator
        return estimator
