"""A tenant's estimates learn from what others share, and from nothing that was taken back."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from app.cost.evidence import Evidence
from app.jobs import recalibrate
from app.store import cards, estimators, outcomes, tasks, tenants
from app.store.estimators import Estimators
from app.store.outcomes import Run
from app.store.session import Database
from app.store.tables import PUBLIC, EstimatorVersion, Outcome
from tests.cost.cards import CANDIDATE
from tests.cost.test_estimator import asked
from tests.jobs.test_recalibrate import report
from tests.store.samples import make_embedding, ready_task

SHIPPED = Evidence.of([])


@pytest.fixture(autouse=True)
def candidates(database: Database) -> None:
    """Everybody has those that the outcomes are of."""
    with database.session() as session:
        for number in range(6):
            card = CANDIDATE.model_copy(update={"name": f"model-{number}"})
            session.merge(cards._row(PUBLIC, card))


def refresh(database: Database) -> None:
    while recalibrate.refresh(database, SHIPPED):
        pass


def share(database: Database, tenant: str, shares: bool) -> None:
    with database.session() as session:
        tenants.share_outcomes(session, tenant, shares=shares)


def told(database: Database, fitted: Estimators, tenant: str) -> Any:
    """What a tenant is told of a task that nobody reported."""
    with database.session(read_only=True) as session:
        accuracy = fitted.of(session, tenant).accuracy
        return accuracy and repr(accuracy.forecast(asked("new", ["model-0", "model-5"])))


def evidence(database: Database) -> Evidence | None:
    with database.session(read_only=True) as session:
        version = estimators.latest(session, PUBLIC, published=True, with_evidence=True)
        return None if version is None else estimators.evidence_of(version)


def test_what_one_shares_changes_anothers_estimates_until_it_is_taken_back(
    database: Database,
) -> None:
    report(database, 3, tenant="a")
    refresh(database)
    fitted = Estimators(SHIPPED)
    before, own_before = told(database, fitted, "b"), told(database, fitted, "a")
    share(database, "a", True)
    refresh(database)
    assert told(database, fitted, "b") != before
    assert told(database, fitted, "a") == own_before  # its own are not counted twice
    share(database, "a", False)
    assert told(database, fitted, "b") == before  # at once
    refresh(database)
    assert told(database, fitted, "b") == before
    assert told(database, fitted, "a") == own_before
    assert evidence(database) is None


def test_nothing_shared_names_a_task_a_tenant_or_a_machine(database: Database) -> None:
    report(database, 3, tenant="tenant-a")
    share(database, "tenant-a", True)
    refresh(database)
    shared = evidence(database)
    assert len(shared.runs) == 18
    written = str(shared.runs.to_dicts())
    for name in ("task-0", "tenant-a", "gpu"):
        assert name not in written
    for measured in ("seconds", "counted_seconds", "memory_mib"):
        assert shared.runs[measured].null_count() == 18
    with database.session(read_only=True) as session:
        version = estimators.latest(session, PUBLIC, published=True)
        assert "tenant-a" not in str(version.report)


def test_of_those_who_share_one_takes_back_only_its_own(database: Database) -> None:
    for tenant, n_tasks in (("a", 3), ("c", 4)):
        report(database, n_tasks, tenant=tenant)
        share(database, tenant, True)
    refresh(database)
    assert len(evidence(database).runs) == 18 + 24
    share(database, "a", False)
    assert evidence(database) is None
    refresh(database)
    assert len(evidence(database).runs) == 24


def test_candidates_of_ones_own_are_not_shared(database: Database) -> None:
    report(database, 3, tenant="a")
    names = {"task": "t", "model": "mine", "recipe": "full", "device": "", "metric": "accuracy"}
    with database.session() as session:
        outcomes.add(session, "a", [Run({**names, "stop_reason": "cap"}, 0.9, {})], [None])
    share(database, "a", True)
    refresh(database)
    assert "mine" not in evidence(database).runs["model"].to_list()


def test_a_deleted_task_of_one_who_shares_is_not_learnt_from_any_more(database: Database) -> None:
    report(database, 3, tenant="a")
    with database.session() as session:
        task = ready_task(session, make_embedding(0), tenant="a")
        for outcome in session.scalars(select(Outcome).where(Outcome.task == "task-00")):
            outcome.task = task.id
    share(database, "a", True)
    refresh(database)
    with database.session() as session:
        tasks.delete_task(session, tasks.get_own_task(session, "a", task.id))
    assert evidence(database) is None
    refresh(database)
    assert len(evidence(database).runs) == 12


def test_a_forgotten_tenants_outcomes_are_taken_back(database: Database) -> None:
    report(database, 3, tenant="a")
    share(database, "a", True)
    refresh(database)
    with database.session() as session:
        tenants.forget(session, "a")
    assert evidence(database) is None
    with database.session(read_only=True) as session:
        assert {row.tenant for row in session.scalars(select(EstimatorVersion))} == {PUBLIC}


def test_a_version_fitted_while_its_outcomes_are_taken_back_is_not_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(database, 3, tenant="a")
    share(database, "a", True)
    beside = estimators.beside

    def then_take_back(session: Any, shipped: Evidence, tenant: str) -> Evidence:
        if tenant == PUBLIC:
            share(database, "a", False)
        return beside(session, shipped, tenant)

    monkeypatch.setattr(estimators, "beside", then_take_back)
    recalibrate.refresh(database, SHIPPED)
    assert evidence(database) is None
