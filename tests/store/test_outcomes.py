from __future__ import annotations

from dataclasses import replace

from app.store import outcomes
from app.store.outcomes import Run
from app.store.session import Database

NAMES = {
    "task": "t", "model": "m", "recipe": "", "device": "", "metric": "accuracy", "stop_reason": ""
}  # fmt: skip


def run(value: float | None = 0.5, **numbers: float) -> Run:
    return Run(NAMES, value, numbers)


def add(database: Database, *runs: Run, tenant: str = "acme") -> outcomes.Added:
    with database.session() as session:
        return outcomes.add(session, tenant, runs, [None] * len(runs))


def test_a_run_is_kept_once_within_a_table_and_between_tables(database: Database) -> None:
    assert len(add(database, run(), run(), run(0.6)).new) == 2
    again = add(database, run(0.6), run(0.7))
    assert [outcome.value for outcome in again.new] == [0.7]
    with database.session(read_only=True) as session:
        found, _ = outcomes.list_outcomes(session, "acme", limit=10)
        assert [outcome.value for outcome in found] == [0.7, 0.6, 0.5]


def test_a_tenants_outcomes_are_its_own(database: Database) -> None:
    (mine,) = add(database, run()).new
    (theirs,) = add(database, run(), tenant="rival").new
    assert mine.digest == theirs.digest
    with database.session(read_only=True) as session:
        found, _ = outcomes.list_outcomes(session, "rival", limit=10)
        assert [outcome.id for outcome in found] == [theirs.id]


def test_new_outcomes_are_held_against_those_before(database: Database) -> None:
    add(database, *(run(0.5 + i / 100, seconds=60.0 + i) for i in range(20)))
    usual, slow, odd = add(
        database, run(0.55, seconds=70.5), run(0.56, seconds=1e7), run(0.999, seconds=70.0)
    ).new
    assert usual.quarantine is None
    assert slow.quarantine is not None
    assert "seconds" in slow.quarantine
    assert odd.quarantine == "0.999 is far from what others reached on t."


def test_a_run_that_stopped_early_is_as_fast_as_its_like_and_no_miss_of_its_forecast(
    database: Database,
) -> None:
    """A tenth of the recipe's steps, in a tenth of what was counted for all of them."""
    seconds = {"low": 50.0, "typical": 60.0, "high": 90.0, "kind": "conformal_90"}
    accuracy = {"low": 0.4, "typical": 0.5, "high": 0.6, "kind": "conformal_90"}
    whole = [run(0.5 + i / 1000, seconds=60.0 + i / 10) for i in range(20)]
    early = replace(whole[0], names={**NAMES, "stop_reason": "converged"}, numbers={"seconds": 6.1})
    slow = replace(early, numbers={"seconds": 60.5})
    with database.session() as session:
        added = outcomes.add(
            session,
            "acme",
            [*whole, early, slow],
            [
                {"seconds": seconds, "accuracy": accuracy, "counted": {"seconds": counted}}
                for counted in [30.0] * len(whole) + [3.0] * 2
            ],
        )
        assert [each.quarantine is None for each in added.outcomes] == [True] * 21 + [False]
        session.flush()
        scored = outcomes.scored(session, "acme", 100)
    assert scored["seconds"] == (["t"] * 20, [True] * 20)
    assert scored["accuracy"] == (["t"] * 21, [True] * 21)


def test_a_run_that_tells_nothing_but_that_it_failed_is_kept(database: Database) -> None:
    (failed,) = add(database, run(None)).new
    assert (failed.value, failed.quarantine) == (None, None)


def test_many_runs_are_added_together(database: Database) -> None:
    runs = [run(0.5, seconds=60.0 + i) for i in range(1200)]
    assert len(add(database, *runs).new) == 1200
    assert len(add(database, *runs).new) == 0
