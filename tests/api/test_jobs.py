from __future__ import annotations

import json
import threading
import time
from typing import Any

import fastapi.routing
import pytest

from app.api.jobs import stop_streams
from tests.api.conftest import Service, assert_problem

pytestmark = pytest.mark.engines("embedded", "servers")


def events(text: str) -> list[dict[str, Any]]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(entry) for entry in data]


def test_a_job_tells_state_phase_progress_and_remaining_time(service: Service) -> None:
    accepted = service.send().json()
    address = f"/v1/jobs/{accepted['job_id']}"
    job = service.client.get(address).json()
    assert (job["state"], job["task_id"]) == ("queued", accepted["id"])
    token = service.start(accepted["job_id"])
    service.report(accepted["job_id"], token, "features", 3, 10)
    job = service.client.get(address).json()
    assert (job["state"], job["phase"], job["done"], job["total"]) == ("running", "features", 3, 10)
    assert job["remaining_seconds"] == 1.5
    assert job["attempts"] == 1


def test_jobs_are_listed_by_state_and_task(service: Service) -> None:
    first, second = service.send().json(), service.send().json()
    service.start(second["job_id"])

    def listed(**query: str) -> list[str]:
        return [job["id"] for job in service.client.get("/v1/jobs", params=query).json()["items"]]

    assert listed() == [second["job_id"], first["job_id"]]
    assert listed(state="running") == [second["job_id"]]
    assert listed(task_id=first["id"]) == [first["job_id"]]


def test_cancelling_a_queued_job_ends_it_and_its_task_at_once(service: Service) -> None:
    accepted = service.send().json()
    answer = service.client.delete(f"/v1/jobs/{accepted['job_id']}")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    task = service.client.get(f"/v1/tasks/{accepted['id']}").json()
    assert task["status"] == "cancelled"


def test_cancelling_a_running_job_asks_its_worker(service: Service) -> None:
    job_id = service.send().json()["job_id"]
    service.start(job_id)
    job = service.client.delete(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["cancel_requested"]) == ("running", True)


def test_cancelling_an_ended_job_changes_nothing(service: Service) -> None:
    task_id = service.ready()
    job_id = service.client.get(f"/v1/tasks/{task_id}").json()["job_id"]
    assert service.client.delete(f"/v1/jobs/{job_id}").json()["state"] == "succeeded"


def test_events_tell_each_change_and_end_with_the_final_state(service: Service) -> None:
    job_id = service.send().json()["job_id"]

    def work() -> None:
        token = service.start(job_id)
        for done in (1, 2):
            service.report(job_id, token, "fisher", done, 2)
            time.sleep(0.1)
        service.succeed(job_id, token)

    worker = threading.Thread(target=work)
    worker.start()
    answer = service.client.get(f"/v1/jobs/{job_id}/events")
    worker.join()
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events(answer.text)
    assert [event["done"] for event in told if event["phase"] == "fisher"][:1] == [1]
    assert [event["state"] for event in told].count("succeeded") == 1
    assert told[-1]["state"] == "succeeded"
    assert "event: progress" in answer.text


def test_a_stream_taken_up_after_the_end_tells_the_final_state_and_the_problem(
    service: Service,
) -> None:
    job_id = service.send().json()["job_id"]
    service.refuse(job_id, {"type": "/problems/one-class", "status": 422})
    answer = service.client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "7"})
    (only,) = events(answer.text)
    assert only["state"] == "refused"
    assert only["problem"]["type"] == "/problems/one-class"


def test_a_quiet_stream_stays_alive_by_heartbeats(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.05)
    job_id = service.send().json()["job_id"]
    threading.Timer(0.4, lambda: service.client.delete(f"/v1/jobs/{job_id}")).start()
    answer = service.client.get(f"/v1/jobs/{job_id}/events")
    assert ": ping" in answer.text
    assert events(answer.text)[-1]["state"] == "cancelled"


def test_the_stream_of_a_job_that_goes_with_its_task_ends_as_cancelled(service: Service) -> None:
    accepted = service.send().json()
    threading.Timer(0.2, lambda: service.client.delete(f"/v1/tasks/{accepted['id']}")).start()
    answer = service.client.get(f"/v1/jobs/{accepted['job_id']}/events")
    told = events(answer.text)
    assert [event["state"] for event in told] == ["queued", "cancelled"]
    assert told[-1]["problem"]["type"] == "/problems/job-deleted"


def test_event_ids_are_of_the_job_and_not_of_the_connection(service: Service) -> None:
    job_id = service.send().json()["job_id"]
    service.refuse(job_id, {"type": "/problems/one-class", "status": 422})

    def ids() -> list[str]:
        answer = service.client.get(f"/v1/jobs/{job_id}/events")
        return [line for line in answer.text.splitlines() if line.startswith("id:")]

    other = service.send().json()["job_id"]
    service.client.delete(f"/v1/jobs/{other}")
    text = service.client.get(f"/v1/jobs/{other}/events").text
    assert ids() == ids()
    assert ids()[0] not in text


def test_a_stopping_server_ends_its_streams(service: Service) -> None:
    job_id = service.send().json()["job_id"]
    threading.Timer(0.2, stop_streams, [service.client.app]).start()
    # Should the stream go on, this ends it, with one event more.
    late = threading.Timer(5, lambda: service.client.delete(f"/v1/jobs/{job_id}"))
    late.start()
    answer = service.client.get(f"/v1/jobs/{job_id}/events")
    late.cancel()
    assert [event["state"] for event in events(answer.text)] == ["queued"]


def test_events_of_no_job_are_a_problem_and_no_stream(service: Service) -> None:
    assert_problem(service.client.get("/v1/jobs/nobody/events"), 404, "unknown-job")
