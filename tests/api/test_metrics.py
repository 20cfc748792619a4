"""What /metrics tells: requests of the process, and jobs and workers of all, by the rows."""

from __future__ import annotations

from datetime import timedelta
from unittest.mock import Mock

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from app.store import jobs, tallies
from app.store.tables import Job
from tests.api.conftest import Service


def told(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = service.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name.removeprefix("task2vec_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def labels(**names: str) -> frozenset[tuple[str, str]]:
    return frozenset(names.items())


def test_jobs_are_told_by_kind_while_they_wait_run_and_have_ended(service: Service) -> None:
    accepted = [service.send(name=name).json()["job_id"] for name in ("first", "second")]
    token = service.start(accepted[0])
    found = told(service)
    assert found["jobs", labels(kind="embed_task", state="queued")] == 1
    assert found["jobs", labels(kind="embed_task", state="running")] == 1
    assert found["oldest_wait_seconds", labels(kind="embed_task")] > 0
    assert found["outbox_jobs", labels()] == 2
    assert found["job_wait_seconds_count", labels(kind="embed_task")] == 1
    service.succeed(accepted[0], token)
    service.refuse(accepted[1], {"type": "/problems/too-few-images"})
    found = told(service)
    assert ("jobs", labels(kind="embed_task", state="running")) not in found
    assert found["job_seconds_count", labels(kind="embed_task", state="succeeded")] == 1
    assert found["job_seconds_count", labels(kind="embed_task", state="refused")] == 1
    assert found["job_wait_seconds_count", labels(kind="embed_task")] == 2


def test_what_jobs_took_outlives_their_task(service: Service) -> None:
    task_id = service.ready()
    before = told(service)
    assert service.client.delete(f"/v1/tasks/{task_id}").status_code == 204
    ended = ("job_seconds_count", labels(kind="embed_task", state="succeeded"))
    assert told(service)[ended] == before[ended] == 1


def test_a_jobs_time_lies_in_the_bucket_that_it_belongs_to(service: Service) -> None:
    job_id = service.send().json()["job_id"]
    token = service.start(job_id)
    with service.resources.database.session() as session:
        job = jobs.get_job(session, "local", job_id)
        assert isinstance(job, Job)
        assert job.started_at is not None
        job.started_at -= timedelta(seconds=20)
    service.succeed(job_id, token)
    found = told(service)

    def up_to(end: str) -> float:
        name = "job_seconds_bucket"
        return found[name, labels(kind="embed_task", state="succeeded", le=end)]

    assert (up_to("10.0"), up_to("30.0"), up_to("+Inf")) == (0, 1, 1)
    taken = found["job_seconds_sum", labels(kind="embed_task", state="succeeded")]
    assert taken == pytest.approx(20, abs=5)


def test_a_job_that_is_taken_over_counts_as_tried_again(service: Service) -> None:
    job_id = service.send().json()["job_id"]
    for _ in range(2):
        service.start(job_id)
    found = told(service)
    assert found["job_retries_total", labels(kind="embed_task", cause="worker")] == 1
    assert found["job_wait_seconds_count", labels(kind="embed_task")] == 1


def test_work_is_told_by_device(service: Service) -> None:
    with service.resources.database.session() as session:
        tallies.add(session, "work", "finetune", "cuda", 90.0)
        tallies.add(session, "work", "finetune", "cuda", 7200.0)
        tallies.add(session, "work", "finetune", "cpu", -1.0)
    found = told(service)
    assert found["work_seconds_total", labels(kind="finetune", device="cuda")] == 7290
    assert found["work_seconds_total", labels(kind="finetune", device="cpu")] == 0


def test_workers_are_told_by_device_and_that_there_are_none(service: Service) -> None:
    assert told(service)["workers", labels(device="none")] == 0
    service.warm_up()
    found = told(service)
    assert found["workers", labels(device="cpu")] == 1
    assert ("workers", labels(device="none")) not in found


def test_requests_are_told_by_the_route_as_it_is_declared(service: Service) -> None:
    task_id = service.ready()
    before = told(service)
    for path in (task_id, "nobody", "nothing"):
        service.client.get(f"/v1/tasks/{path}")
    service.client.request("BREW", "/v1/tasks")
    service.client.get("/somewhere/else")
    found = told(service)

    def more(method: str, route: str, status: int) -> float:
        key = "request_seconds_count", labels(method=method, route=route, status=str(status))
        return found.get(key, 0) - before.get(key, 0)

    assert more("GET", "/v1/tasks/{task_id}", 200) == 1
    assert more("GET", "/v1/tasks/{task_id}", 404) == 2
    assert more("GET", "none", 404) == 1
    assert more("GET", "/metrics", 200) == 1
    assert not any(task_id in str(names) for _, names in found)
    assert "BREW" not in {value for _, names in found for _, value in names}


def test_an_answer_that_failed_counts_as_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.tasks.list_tasks", Mock(side_effect=ZeroDivisionError))
    key = "request_seconds_count", labels(method="GET", route="/v1/tasks", status="500")
    before = told(service).get(key, 0)
    assert service.client.get("/v1/tasks").status_code == 500
    assert told(service)[key] == before + 1


def test_a_database_that_does_not_answer_is_told_beside_the_rest(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(service)["database_up", labels()] == 1
    gone = Mock(side_effect=OperationalError("", None, Exception()))
    monkeypatch.setattr(type(service.resources.database), "session", gone)
    found = told(service)
    assert found["database_up", labels()] == 0
    assert found["disk_free_bytes", labels()] > 0


def test_an_index_that_was_searched_tells_what_it_does_not_hold(service: Service) -> None:
    task_id = service.ready(seed=1)
    assert service.client.get(f"/v1/tasks/{task_id}/neighbours").status_code == 200
    lags = {names: lag for (name, names), lag in told(service).items() if name == "index_lag"}
    if lags:  # pgvector tells only of indexes that are being made
        service.ready(seed=2)
        assert {lag for (name, _), lag in told(service).items() if name == "index_lag"} == {1}


def test_coverage_of_the_estimator_is_told_of_all_tenants_together(service: Service) -> None:
    from app.store.tables import Outcome

    interval = {"accuracy": {"kind": "conformal_90", "low": 0.5, "typical": 0.6, "high": 0.7}}
    with service.resources.database.session() as session:
        for number in range(12):
            session.add(
                Outcome(
                    tenant=f"tenant-{number % 3}",
                    digest=str(number),
                    task=f"task-{number}",
                    model="m",
                    recipe="",
                    device="",
                    metric="accuracy",
                    value=0.9 if number else 0.6,
                    stop_reason="",
                    numbers={},
                    forecast=interval,
                )
            )
    found = told(service)
    assert found["estimator_coverage", labels(number="accuracy")] == pytest.approx(1 / 12)
    assert found["estimator_drifting", labels(number="accuracy")] == 1
