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
from app.store.tables import PUBLIC, EstimatorVersion, Outcome, TenantSettings

SHIPPED_DIGEST = "shipped_digest"
"""Key of a version's report: of the shipped outcomes that stood beside the tenant's."""

_NONE = -1  # no outcome's: whatever was fitted to is to be fitted anew
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
    tenants = [PUBLIC, *session.scalars(_TENANTS)]  # what is shared first: others rest on it
    return [tenant for tenant in tenants if is_due(session, tenant, shipped_digest)]


def is_due(session: Session, tenant: str, shipped_digest: str) -> bool:
    last = latest(session, tenant, published=False)
    at = watermark(session, tenant)
    if last is None or not at.newest:
        return at.newest > 0
    fitted = Watermark(last.newest, last.n_quarantined, last.n_outcomes)
    fitted_by = (last.code_version, last.report.get(SHIPPED_DIGEST))
    return at != fitted or fitted_by != (__version__, basis(session, shipped_digest, tenant))


def sources(session: Session, tenant: str) -> list[str]:
    """Whose outcomes an estimator is fitted to: PUBLIC's to those of all who share theirs."""
    if tenant != PUBLIC:
        return [tenant]
    sharing = select(TenantSettings.tenant).where(TenantSettings.share_outcomes)
    return list(session.scalars(sharing.order_by(TenantSettings.tenant)))


def basis(session: Session, shipped_digest: str, tenant: str) -> str:
    """Tells apart what may stand beside a tenant's outcomes."""
    shared = None if tenant == PUBLIC else latest(session, PUBLIC, published=True)
    return shipped_digest if shared is None else f"{shipped_digest}+{shared.seq}"


def beside(session: Session, shipped: Evidence, tenant: str) -> Evidence:
    """What ships, and what other tenants share."""
    if tenant == PUBLIC:
        return shipped
    shared = latest(session, PUBLIC, published=True, with_evidence=True)
    return shipped if shared is None else shipped.beside(evidence_of(shared).of_others(tenant))


def watermark(session: Session, tenant: str) -> Watermark:
    aside = func.count().filter(Outcome.quarantine.is_not(None))
    used = func.count().filter(Outcome.quarantine.is_(None))
    newest = func.coalesce(func.max(Outcome.seq), 0)
    own = Outcome.tenant.in_(sources(session, tenant))
    row = session.execute(select(newest, aside, used).where(own)).one()
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


def add(
    session: Session, version: EstimatorVersion, evidence: Evidence, fitted_to: list[str]
) -> bool:
    """As the tenant's next version; where it serves, its predecessors give up their evidence.

    Not where outcomes that it was `fitted_to` were deleted, or taken back, meanwhile: then another
    one is due.
    """
    _hold(session, version.tenant)
    if not set(fitted_to) <= set(sources(session, version.tenant)):
        return False
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
        for fitted in (tenant, PUBLIC):
            if tenant in sources(session, fitted):
                withdraw(session, fitted, "Outcomes that it was fitted to were deleted.")


def withdraw(session: Session, tenant: str, reason: str) -> None:
    """No version of the tenant's serves any more, nor tells of tasks: the next is published
    whatever it is like."""
    _hold(session, tenant)
    nothing: dict[str, Any] = {"accuracy": None, "corrections": {}, "comparison": None}
    session.execute(
        update(EstimatorVersion)
        .where(EstimatorVersion.tenant == tenant)
        .values(published=False, evidence=None, report=nothing, reason=reason, newest=_NONE)
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
        self._fitted: dict[str, tuple[tuple[int, int], Estimator]] = {}
        self._mutex = threading.Lock()

    def of(self, session: Session, tenant: str) -> Estimator:
        own, shared = (latest(session, each, published=True) for each in (tenant, PUBLIC))
        if own is None and shared is None:
            return self._nobodys
        of = (own.seq if own else 0, shared.seq if shared else 0)
        with self._mutex:
            fitted_of, estimator = self._fitted.get(tenant, ((0, 0), self._nobodys))
        if fitted_of != of:
            estimator = self._fit(session, tenant)
            with self._mutex:
                self._fitted[tenant] = of, estimator
        return estimator

    def _fit(self, session: Session, tenant: str) -> Estimator:
        # Read again with their evidence: successors may have taken it meanwhile.
        evidence = beside(session, self._shipped, tenant)
        version = latest(session, tenant, published=True, with_evidence=True)
        if version is None:
            return Estimator(evidence)
        calibration = calibration_from(version.calibration)
        return Estimator(evidence.beside(evidence_of(version)), calibration)
