from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from app.catalogue import CandidateCard
from app.cost.timing import Spread, Timing
from app.store import cards, timings
from app.store.tables import Task
from tests.api.conftest import Service, assert_problem

DEVICE = "cpu-2core"
STEP = {"low": 9.0, "typical": 10.0, "high": 11.0}
PASS = {"low": 1.0, "typical": 2.0, "high": 3.0}


@pytest.fixture
def candidate(service: Service) -> str:
    with service.resources.database.session(read_only=True) as session:
        return cards.list_cards(session, "local", CandidateCard)[0].name


def report(name: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "device": DEVICE,
        "candidate": name,
        "batch_size": 16,
        "step_seconds": STEP,
        "forward_seconds": PASS,
    }
    return plain | changes


def row(service: Service, task: str, candidate: str) -> dict[str, Any]:
    asked = {"device": DEVICE, "recipe": "full", "k": 100}
    rows = service.client.get(f"/v1/tasks/{task}/estimates", params=asked).json()["estimates"]
    found: dict[str, Any] = next(each for each in rows if each["candidate"] == candidate)
    return found


def test_the_newest_timing_of_a_candidate_is_listed(service: Service, candidate: str) -> None:
    assert service.client.get("/v1/timings").json() == {"items": []}
    first = service.client.post("/v1/timings", json=report(candidate, batch_size=8))
    second = service.client.post("/v1/timings", json=report(candidate))
    assert (first.status_code, second.status_code) == (201, 201)
    assert service.client.get("/v1/timings").json()["items"] == [second.json()]
    assert service.client.get("/v1/timings", params={"device": "a10"}).json() == {"items": []}


def test_a_timing_that_is_taken_back_counts_no_more(service: Service, candidate: str) -> None:
    task = service.ready()
    before = row(service, task, candidate)
    service.client.post("/v1/timings", json=report(candidate))
    address = f"/v1/timings/{DEVICE}/{candidate}"
    assert service.client.delete(address).status_code == 204
    assert row(service, task, candidate) == before
    assert_problem(service.client.delete(address), 404, "unknown-timing")


def test_estimates_rest_on_a_timing_at_once(service: Service, candidate: str) -> None:
    task = service.ready()
    before = row(service, task, candidate)
    service.client.post("/v1/timings", json=report(candidate))
    after = row(service, task, candidate)
    assert after["seconds"] != before["seconds"]
    width = [each["seconds"]["high"] / each["seconds"]["low"] for each in (before, after)]
    assert width[1] < width[0]
    assert any("as timed on this device" in line for line in after["basis"])
    elsewhere = service.client.get(f"/v1/tasks/{task}/estimates", params={"device": "a10"})
    assert "as timed" not in elsewhere.text


def test_photographs_of_many_pixels_take_longer_to_read(service: Service, candidate: str) -> None:
    task = service.ready()
    before = row(service, task, candidate)
    with service.resources.database.session() as session:
        kept = session.scalars(select(Task).where(Task.id == task)).one()
        kept.intake_summary = {**(kept.intake_summary or {}), "mean_pixels": 12e6}
    after = row(service, task, candidate)
    assert after["seconds"]["typical"] > before["seconds"]["typical"]
    assert after["memory_mib"] == before["memory_mib"]


def test_outcomes_of_the_candidate_itself_tell_more(service: Service, candidate: str) -> None:
    task = service.ready()
    run = {"task": task, "model": candidate, "recipe": "full", "device": DEVICE}
    run |= {"metric": "accuracy", "value": 0.8, "seconds": 5_000.0}
    assert service.client.post("/v1/outcomes", json=run).status_code == 201
    service.recalibrate()
    others = [
        card["name"]
        for card in service.client.get("/v1/candidates").json()["items"]
        if card["name"] != candidate
    ]
    before = {name: row(service, task, name) for name in (candidate, others[0])}
    assert all("outcomes on this device" in str(each["basis"]) for each in before.values())
    for name in before:
        service.client.post("/v1/timings", json=report(name))
    after = {name: row(service, task, name) for name in before}
    assert after[candidate]["seconds"] == before[candidate]["seconds"]
    assert after[others[0]]["seconds"] != before[others[0]]["seconds"]
    assert "as timed on this device" in str(after[others[0]]["basis"])
    pace = [
        each["energy_wh"]["typical"] / each["seconds"]["typical"]
        for each in (after[others[0]], before[others[0]])
    ]
    assert pace[0] == pytest.approx(pace[1])
    asked = {"device": DEVICE, "recipe": "head_only", "k": 100}
    heads = service.client.get(f"/v1/tasks/{task}/estimates", params=asked).json()["estimates"]
    (head,) = [each for each in heads if each["candidate"] == candidate]
    assert "as timed on this device" in str(head["basis"])  # it ran under another recipe alone


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"device": "abacus"}, "abacus"),
        ({"candidate": "brain"}, "brain"),
        ({"batch_size": 0}, "batch_size"),
        ({"step_seconds": {"low": 3.0, "typical": 2.0, "high": 1.0}}, "spread"),
        ({"step_seconds": {"low": 0.0, "typical": 2.0, "high": 3.0}}, "step_seconds"),
        ({"steps": 25}, "steps"),
    ],
)
def test_what_is_no_timing_is_refused(
    service: Service, candidate: str, changes: dict[str, Any], named: str
) -> None:
    answer = service.client.post("/v1/timings", json=report(candidate, **changes))
    assert answer.status_code in {400, 422}
    assert named in answer.text
    assert service.client.get("/v1/timings").json() == {"items": []}


def test_another_tenants_timings_are_not_seen(service: Service, candidate: str) -> None:
    timing = Timing(16, Spread(1.0, 2.0, 3.0), Spread(1.0, 2.0, 3.0))
    with service.resources.database.session() as session:
        timings.put(session, "rival", DEVICE, candidate, timing)
    assert service.client.get("/v1/timings").json() == {"items": []}
    task = service.ready()
    assert not any("timed" in line for line in row(service, task, candidate)["basis"])
