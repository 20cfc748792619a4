from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest
from sqlalchemy.orm import Session

from app.cost.evidence import Evidence
from app.jobs import recalibrate
from app.store import estimators, outcomes
from app.store.estimators import Estimators
from app.store.outcomes import Run
from app.store.session import Database
from app.store.tables import EstimatorVersion
from tests.cost.outcomes import runs
from tests.cost.test_estimator import asked


def report(
    database: Database, n_tasks: int, *, tenant: str = "acme", shuffled: bool = False
) -> None:
    """Outcomes of made-up tasks, with what was counted for them; shuffled ones say nothing."""
    told = []
    frame = runs(n_tasks, noise=0.05)
    if shuffled:
        by_chance = pl.col("value").shuffle(seed=1) > 0.7
        extreme = pl.when(by_chance).then(0.97).otherwise(0.03)
        frame = frame.with_columns(value=extreme, task="odd " + pl.col("task"))
    for row in frame.iter_rows(named=True):
        names = {name: row[name] for name in ("task", "model", "recipe", "metric", "stop_reason")}
        told.append(Run({**names, "device": "gpu"}, row["value"], {"seconds": 60.0}))
    with database.session() as session:
        outcomes.add(session, tenant, told, [{"counted": {"seconds": 20.0}}] * len(told))


def refresh(database: Database, *, stop: Callable[[], bool] = lambda: False) -> int:
    return recalibrate.refresh(database, Evidence.of([]), stop=stop)


def latest(database: Database, *, published: bool = True) -> EstimatorVersion | None:
    with database.session(read_only=True) as session:
        return estimators.latest(session, "acme", published=published, with_evidence=True)


def test_an_estimator_is_fitted_once_and_again_only_after_a_change(database: Database) -> None:
    assert refresh(database) == 0
    report(database, 10)
    assert refresh(database) == 1
    assert refresh(database) == 0
    first = latest(database)
    assert (first.version, first.n_outcomes, first.n_tasks, first.n_candidates) == (1, 60, 10, 6)
    report(database, 12)
    assert refresh(database) == 1
    assert latest(database).version == 2
    assert latest(database).reason.startswith("Not worse than the one before: ")


def test_a_report_stands_beside_it(database: Database) -> None:
    report(database, 12)
    refresh(database)
    version = latest(database)
    assert version.report["accuracy"]["summary"]["weighted_tau"] > 0.8
    assert "outcome_prior" in version.report["accuracy"]["baselines"]
    seconds = version.report["corrections"]["seconds"]
    assert seconds["corrected_medale"] < 0.2 < 1.0 < seconds["counted_medale"]


def test_a_worse_one_is_kept_aside_and_the_one_before_goes_on(database: Database) -> None:
    report(database, 14)
    refresh(database)
    report(database, 6, shuffled=True)
    refresh(database)
    refused = latest(database, published=False)
    assert (refused.version, refused.published, refused.evidence) == (2, False, None)
    assert refused.reason.startswith("Worse than the one before: ")
    assert latest(database).version == 1
    assert refresh(database) == 0


def test_only_the_one_that_serves_keeps_its_evidence(database: Database) -> None:
    report(database, 10)
    refresh(database)
    report(database, 12)
    refresh(database)
    with database.session(read_only=True) as session:
        kept = {version.version: version.evidence for version in session.query(EstimatorVersion)}
    assert kept[1] is None
    assert kept[2] is not None


def test_tenants_learn_from_their_own_outcomes(database: Database) -> None:
    report(database, 10)
    report(database, 2, tenant="rival")
    assert refresh(database) == 2
    fitted = Estimators(Evidence.of([]))
    kinds = {}
    for tenant in ("acme", "rival", "nobody"):
        with database.session(read_only=True) as session:
            estimator = fitted.of(session, tenant)
        if estimator.accuracy is not None:
            found = estimator.accuracy.forecast(asked("new", ["model-0"]))
            kinds[tenant] = found["model-0"].kind
    assert kinds == {"acme": "conformal_90", "rival": "uncalibrated_range"}


def test_a_process_takes_over_the_newest_version(database: Database) -> None:
    report(database, 10)
    refresh(database)
    fitted = Estimators(Evidence.of([]))
    with database.session(read_only=True) as session:
        first = fitted.of(session, "acme")
        assert fitted.of(session, "acme") is first
    report(database, 12)
    refresh(database)
    with database.session(read_only=True) as session:
        assert fitted.of(session, "acme") is not first
    version = latest(database)
    with pytest.raises(ValueError, match="serves no more"):
        version.evidence = None
        estimators.evidence_of(version)


def test_what_is_left_is_done_at_the_next_turn(database: Database) -> None:
    report(database, 5)
    assert refresh(database, stop=lambda: True) == 0
    assert refresh(database) == 1


def test_an_estimator_that_another_version_of_the_service_fitted_is_due(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(database, 5)
    assert refresh(database) == 1
    monkeypatch.setattr("app.store.estimators.__version__", "later")
    monkeypatch.setattr("app.jobs.recalibrate.__version__", "later")
    assert refresh(database) == 1
    assert refresh(database) == 0


def test_an_estimator_is_due_once_other_outcomes_ship(database: Database) -> None:
    report(database, 5)
    assert refresh(database) == 1
    row = {"task": "shipped:a", "model": "m", "recipe": "full", "metric": "accuracy", "value": 0.5}
    shipped = Evidence.of([{**row, "device": "", "stop_reason": ""}])
    assert recalibrate.refresh(database, shipped) == 1
    assert recalibrate.refresh(database, shipped) == 0


def test_one_tenants_failing_fit_leaves_the_others_theirs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(database, 5)
    report(database, 5, tenant="rival")
    real = outcomes.evidence

    def failing(session: Session, tenant: str) -> Evidence:
        if tenant == "acme":
            raise RuntimeError("no")
        return real(session, tenant)

    monkeypatch.setattr(outcomes, "evidence", failing)
    assert refresh(database) == 1
    assert latest(database) is None
    monkeypatch.undo()
    assert refresh(database) == 1
    assert latest(database) is not None
