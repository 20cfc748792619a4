from __future__ import annotations

from unittest.mock import MagicMock

import pytest
from sqlalchemy.exc import OperationalError

from app.errors import Cancelled
from app.jobs import progress as progress_module
from app.jobs.progress import SHARES, Forecast, Progress
from app.store import jobs, tasks
from app.store.blobs import Blob
from app.store.session import Database
from tests.jobs.conftest import PROBE, TENANT


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def test_no_forecast_before_there_is_evidence(time: Time) -> None:
    forecast = Forecast(time)
    assert forecast.remaining_seconds("intake", 0, 100) is None
    time.now = 0.5
    assert forecast.remaining_seconds("intake", 10, 100) is None


def test_no_forecast_while_the_size_is_unknown_or_the_phase_is_not_ours(time: Time) -> None:
    forecast = Forecast(time)
    time.now = 5.0
    assert forecast.remaining_seconds("fetch", 10, 100) is None
    assert forecast.remaining_seconds("intake", 10, 0) is None


def test_forecast_is_exact_where_phases_take_their_shares(time: Time) -> None:
    forecast = Forecast(time)
    for phase, share in SHARES.items():
        began = time.now
        for done in range(0, 101, 20):
            time.now = began + 200 * share * done / 100
            remaining = forecast.remaining_seconds(phase, done, 100)
            if time.now >= 2:
                assert remaining == pytest.approx(200 - time.now)


def test_present_phase_goes_by_its_own_speed(time: Time) -> None:
    forecast = Forecast(time)
    for phase in ("intake", "features", "head"):
        forecast.remaining_seconds(phase, 0, 10)
        time.now += 100
        forecast.remaining_seconds(phase, 10, 10)
    forecast.remaining_seconds("fisher", 0, 10)
    time.now += 2
    assert forecast.remaining_seconds("fisher", 5, 10) == pytest.approx(2)


def test_phase_that_ends_leaves_only_the_later_ones(time: Time) -> None:
    forecast = Forecast(time)
    time.now = 10
    forecast.remaining_seconds("fisher", 0, 10)
    time.now = 20
    assert forecast.remaining_seconds("fisher", 10, 10) == pytest.approx(0)


@pytest.mark.parametrize("first_done", [1, 5])
def test_a_phase_begins_at_the_last_report_of_the_one_before(time: Time, first_done: int) -> None:
    forecast = Forecast(time)
    for done in range(1, 11):
        time.now += 1
        forecast.remaining_seconds("head", done, 10)
    time.now += first_done * 4
    remaining = forecast.remaining_seconds("fisher", first_done, 10)
    assert remaining == pytest.approx(4 * (10 - first_done))


def test_reports_that_are_not_told_count_for_the_forecast(
    monkeypatch: pytest.MonkeyPatch, time: Time
) -> None:
    told: list[float | None] = []
    monkeypatch.setattr(progress_module, "Forecast", lambda: Forecast(time))
    monkeypatch.setattr(jobs, "report_progress", lambda *report: told.append(report[-1]))
    progress = Progress(MagicMock(), MagicMock(), interval_seconds=60, stopping=lambda: False)
    for done in range(1, 11):  # only the first is told
        time.now += 1
        progress("head", done, 10)
    time.now += 8
    progress("fisher", 2, 10)
    assert len(told) == 2
    assert told[1] == pytest.approx(32)


def test_shares_are_of_one_whole() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)


def test_a_busy_database_does_not_stop_the_work_and_a_cancel_is_heard_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.session() as session:
        _, job = tasks.create_task(
            session,
            TENANT,
            name="t",
            tags=[],
            label_kind="auto",
            probe=PROBE,
            archive=Blob("a" * 64, 1),
        )
        start = jobs.start_job(session, job.id, max_attempts=3)
        assert start is not None
        jobs.request_cancel(session, TENANT, job.id)
    progress = Progress(database, start, interval_seconds=0, stopping=lambda: False)

    def busy(*_: object) -> bool:
        raise OperationalError("UPDATE jobs", {}, Exception("database is locked"))

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "report_progress", busy)
        progress("fisher", 1, 9)
    with pytest.raises(Cancelled):
        progress("fisher", 2, 9)
