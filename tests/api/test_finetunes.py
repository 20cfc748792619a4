"""Fine-tuning asked for, followed and refused; what trains is tested in tests/jobs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from app.catalogue import CandidateCard
from app.store import cards, jobs
from app.store.tables import Finetune, Outbox
from tests.api.conftest import Service, assert_problem
from tests.api.runs import EPOCH, RESULT, ask, finish, names_of, read


@pytest.fixture
def candidate(service: Service) -> str:
    return names_of(service)[0]


def test_a_run_is_accepted_with_the_forecast_of_the_moment(
    service: Service, candidate: str
) -> None:
    task = service.ready()
    answer = ask(service, task, candidate, budget_usd=1.0, patience=3, seed=7)
    assert answer.status_code == 202
    accepted = answer.json()
    assert answer.headers["location"] == f"/v1/finetunes/{accepted['id']}"
    assert accepted["warnings"] == []
    run = read(service, accepted["id"])
    assert (run["task_id"], run["candidate"], run["recipe"]) == (task, candidate, "full")
    assert (run["state"], run["curve"], run["result"]) == ("queued", [], None)
    assert run["asked"]["patience"] == 3
    assert run["asked"]["budget_seconds"] > 1000, "of a dollar on the device"
    estimates = service.client.get(f"/v1/tasks/{task}/estimates", params={"k": 1000}).json()
    row = next(each for each in estimates["estimates"] if each["candidate"] == candidate)
    assert run["forecast"]["seconds"]["typical"] == row["seconds"]["typical"]
    assert service.client.get(f"/v1/jobs/{accepted['job_id']}").json()["kind"] == "finetune"
    with service.resources.database.session(read_only=True) as session:
        assert accepted["job_id"] in session.scalars(select(Outbox.job_id)).all()


def test_a_task_goes_on_naming_the_job_that_embedded_it(service: Service, candidate: str) -> None:
    task = service.ready()
    before = service.client.get(f"/v1/tasks/{task}").json()
    ask(service, task, candidate)
    after = service.client.get(f"/v1/tasks/{task}").json()
    assert (after["job_id"], after["status"]) == (before["job_id"], "ready")


def test_the_same_request_again_begins_nothing_new(service: Service, candidate: str) -> None:
    task = service.ready()
    headers = {"Idempotency-Key": "once"}
    first, second = (
        service.client.post(
            f"/v1/tasks/{task}/finetunes", json={"candidate": candidate}, headers=headers
        )
        for _ in range(2)
    )
    assert first.json() == second.json()
    with service.resources.database.session(read_only=True) as session:
        assert len(session.scalars(select(Finetune)).all()) == 1


def test_runs_are_listed_by_task_and_page(service: Service, candidate: str) -> None:
    first, second = service.ready(1), service.ready(2)
    ids = [ask(service, task, candidate).json()["id"] for task in (first, first, second)]
    listed = service.client.get("/v1/finetunes").json()
    assert [run["id"] for run in listed["items"]] == ids[::-1]
    of_first = service.client.get("/v1/finetunes", params={"task_id": first, "limit": 1}).json()
    assert [run["id"] for run in of_first["items"]] == [ids[1]]
    rest = service.client.get(
        "/v1/finetunes", params={"task_id": first, "cursor": of_first["next_cursor"]}
    ).json()
    assert [run["id"] for run in rest["items"]] == [ids[0]]


def test_a_model_can_be_had_once_the_run_has_succeeded(service: Service, candidate: str) -> None:
    accepted = ask(service, service.ready(), candidate).json()
    address = f"/v1/finetunes/{accepted['id']}/model"
    assert_problem(service.client.get(address), 409, "finetune-not-ended")
    finish(service, accepted["job_id"])
    run = read(service, accepted["id"])
    assert (run["state"], run["curve"][0]["accuracy"]) == ("succeeded", 0.5)
    assert run["links"]["model"] == address
    assert service.client.get(address).content == b"weights"
    assert_problem(service.client.get(f"/v1/finetunes/{accepted['id']}/card"), 404, "model-gone")
    outcome = service.client.get(run["links"]["outcome"]).json()
    assert outcome["value"] == 0.5


def events(service: Service, finetune_id: str, **headers: str) -> list[tuple[str, dict[str, Any]]]:
    answer = service.client.get(f"/v1/finetunes/{finetune_id}/events", headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            told.append((fields["event"], json.loads(fields["data"])))
    return told


def test_the_learning_curve_is_streamed_to_its_end_and_can_be_taken_up(
    service: Service, candidate: str
) -> None:
    accepted = ask(service, service.ready(), candidate).json()
    told: list[Any] = []
    listener = threading.Thread(target=lambda: told.extend(events(service, accepted["id"])))
    listener.start()
    finish(service, accepted["job_id"])
    listener.join(10)
    assert [name for name, _ in told] == ["epoch", "ended"]
    assert told[0][1] == EPOCH
    verdict = RESULT["verdict"]
    assert told[1][1] == {"state": "succeeded", "problem": None, "verdict": verdict}
    rest = events(service, accepted["id"], **{"Last-Event-ID": "1"})
    assert [name for name, _ in rest] == ["ended"]


def test_a_target_beyond_what_is_estimated_is_warned_of_and_run(
    service: Service, candidate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.api import outcomes

    told = {"low": 0.5, "typical": 0.6, "high": 0.7, "kind": "conformal_90"}
    monkeypatch.setattr(outcomes.Known, "forecast", lambda *_: {"accuracy": told})
    task = service.ready()
    (warning,) = ask(service, task, candidate, target=0.9).json()["warnings"]
    assert "90.0%" in warning
    assert "70.0%" in warning
    assert ask(service, task, candidate, target=0.65).json()["warnings"] == []


def test_what_cannot_be_trained_is_refused_before_it_is_queued(
    service: Service, candidate: str
) -> None:
    task = service.ready()
    assert_problem(ask(service, "nobody", candidate), 404, "unknown-task")
    assert_problem(ask(service, task, "no-such-model"), 422, "unknown-card")
    assert_problem(ask(service, task, candidate, recipe="none"), 422, "unknown-card")
    assert_problem(ask(service, task, candidate, device="none"), 422, "unknown-card")
    for wrong in ({"target": 85}, {"budget_seconds": 0}, {"budget_usd": -1}, {"patience": 0}):
        assert_problem(ask(service, task, candidate, **wrong), 422, "request-invalid")
    queued = service.send().json()["id"]
    assert_problem(ask(service, queued, candidate), 409, "task-not-ready")
    library = service.client.get("/v1/tasks", params={"library": True}).json()["items"][0]["id"]
    assert_problem(ask(service, library, candidate), 403, "task-is-public")


def test_a_candidate_that_is_only_described_is_refused(service: Service, candidate: str) -> None:
    with service.resources.database.session(read_only=True) as session:
        card = cards.get_card(session, "local", CandidateCard, candidate)
    mine = card.model_dump(mode="json") | {"name": "mine", "weights": {"source": "none"}}
    assert service.client.post("/v1/candidates", json=mine).status_code == 201
    assert_problem(ask(service, service.ready(), "mine"), 422, "candidate-without-weights")


def test_files_of_the_server_are_not_read_for_a_card_of_ones_own(
    service: Service, candidate: str
) -> None:
    with service.resources.database.session(read_only=True) as session:
        card = cards.get_card(session, "local", CandidateCard, candidate)
    for number, source in enumerate(("file:/etc/hostname", "package:app/../../etc/hostname")):
        weights = {"source": source, "sha256": "0" * 64}
        mine = card.model_dump(mode="json") | {"name": f"mine-{number}", "weights": weights}
        assert service.client.post("/v1/candidates", json=mine).status_code == 201
        answer = ask(service, service.ready(), f"mine-{number}")
        assert_problem(answer, 403, "weights-not-allowed")


def test_what_a_processor_takes_is_never_told_of_a_gpu(service: Service, candidate: str) -> None:
    task = service.ready()
    assert ask(service, task, candidate, device="h100").status_code == 202, "nobody knows yet"
    service.warm_up()
    assert_problem(ask(service, task, candidate, device="h100"), 422, "device-differs")
    assert ask(service, task, candidate).status_code == 202


def test_a_run_is_its_tenants_alone(serve: Callable[..., Service], candidate: str) -> None:
    service = serve()
    accepted = ask(service, service.ready(), candidate).json()
    with service.resources.database.session() as session:
        row = session.scalars(select(Finetune)).one()
        row.tenant = "somebody else"
    assert_problem(service.client.get(f"/v1/finetunes/{accepted['id']}"), 404, "unknown-finetune")
    assert service.client.get("/v1/finetunes").json()["items"] == []


def test_a_run_that_waits_for_hours_is_told_from_uploads_that_do(
    service: Service, candidate: str
) -> None:
    ask(service, service.ready(), candidate)
    with service.resources.database.session(read_only=True) as session:
        assert jobs.oldest_wait_seconds(session).keys() == {"finetune"}
