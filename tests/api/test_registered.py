"""A run's model as a candidate: its card, what is estimated of it, and what cannot be undone."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.embedding.distance import one_to_one
from app.store.tables import Finetune, ReferenceLibrary, Task, now
from tests.api.conftest import LIBRARY_SPACE, Service, assert_problem, embedding_of
from tests.api.runs import ask, ended, lose_model, names_of, read


@pytest.fixture
def task(service: Service) -> str:
    return service.ready(seed=1, space_id=LIBRARY_SPACE, name="animals")


@pytest.fixture
def run(service: Service, task: str) -> str:
    return ended(service, task)


def register(service: Service, run: str, key: str = "", **asked: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return service.client.post(f"/v1/finetunes/{run}/candidate", json=asked, headers=headers)


def candidates(service: Service) -> dict[str, dict[str, Any]]:
    return {card["name"]: card for card in service.client.get("/v1/candidates").json()["items"]}


def test_the_card_carries_over_what_was_counted_and_nothing_that_was_published(
    service: Service, task: str, run: str
) -> None:
    answer = register(service, run, name="zoo")
    assert answer.status_code == 201
    card = answer.json()
    assert candidates(service)["zoo"] == card
    parent = candidates(service)[names_of(service)[0]]
    assert {name for name in card if card[name] != parent[name]} == {
        *("name", "description", "pretraining", "parent", "source_task", "weights"),
        *("top1_percent", "top1_source"),
    }
    assert (card["parent"], card["source_task"], card["top1_percent"]) == (
        parent["name"],
        task,
        None,
    )
    assert card["pretraining"].endswith(", then animals")
    assert card["weights"]["source"] == f"run:{run}"
    assert card["weights"]["sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_without_a_name_it_is_called_after_its_parent_and_registered_once(
    service: Service, run: str
) -> None:
    first, again = (register(service, run, key="once") for _ in range(2))
    assert first.json()["name"] == f"{names_of(service)[0]}-{run[:8]}"
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert_problem(register(service, run), 409, "card-exists")


def estimates(service: Service, task: str) -> dict[str, dict[str, Any]]:
    rows = service.client.get(f"/v1/tasks/{task}/estimates").json()["estimates"]
    return {row["candidate"]: row for row in rows}


def test_its_source_task_tells_how_difficult_another_is_for_it(
    service: Service, task: str, run: str
) -> None:
    register(service, run, name="zoo")
    target = service.ready(seed=2, space_id=LIBRARY_SPACE)
    with service.resources.database.session(read_only=True) as session:
        trivial = session.scalars(
            select(ReferenceLibrary.trivial).where(ReferenceLibrary.space_id == LIBRARY_SPACE)
        ).one()
    expected = one_to_one(
        embedding_of(2, LIBRARY_SPACE).vector,
        embedding_of(1, LIBRARY_SPACE).vector,
        "asymmetric",
        epsilon=1e-12,
        trivial=trivial,
    )
    rows = estimates(service, target)
    row, parent = rows["zoo"], rows[names_of(service)[0]]
    assert row["difficulty"] == pytest.approx(expected)
    assert f"difficulty: asymmetric distance from {task}" in row["basis"]
    assert (row["seconds"], row["memory_mib"]) == (parent["seconds"], parent["memory_mib"])
    assert (row["accuracy"], row["top1_percent"]) == (None, None), "nothing is known of either"


def test_its_accuracy_is_its_parents_in_doubt_and_says_so(service: Service, run: str) -> None:
    parent = names_of(service)[0]
    register(service, run, name="zoo")
    for seed, value in ((3, 0.8), (4, 0.9)):
        report = {"task": service.ready(seed=seed), "model": parent, "recipe": "full"}
        told = {"metric": "accuracy", "value": value, **report}
        assert service.client.post("/v1/outcomes", json=told).status_code == 201
    service.recalibrate()
    rows = estimates(service, service.ready(seed=2))
    row, of_parent = rows["zoo"]["accuracy"], rows[parent]["accuracy"]
    assert row["kind"] == "uncalibrated_range"
    assert row["low"] <= of_parent["low"] < of_parent["high"] <= row["high"]
    said = next(line for line in rows["zoo"]["basis"] if line.startswith("accuracy: "))
    assert f"fine-tuned from {parent}" in said
    assert not any("fine-tuned from" in line for line in rows[parent]["basis"])


def test_it_can_be_fine_tuned_and_its_model_registered_in_turn(service: Service, run: str) -> None:
    register(service, run, name="zoo")
    other = service.ready(seed=2, space_id=LIBRARY_SPACE)
    second = ended(service, other, "zoo")
    assert read(service, second)["candidate"] == "zoo"
    card = register(service, second, name="grandchild").json()
    assert (card["parent"], card["source_task"]) == ("zoo", other)
    assert card["weights"]["source"] == f"run:{second}"


def test_a_task_stays_while_a_candidate_rests_on_a_run_of_it(
    service: Service, task: str, run: str
) -> None:
    register(service, run, name="zoo")
    problem = assert_problem(service.client.delete(f"/v1/tasks/{task}"), 409, "task-has-candidates")
    assert problem["candidates"] == ["zoo"]
    assert service.client.delete("/v1/candidates/zoo").status_code == 204
    assert "zoo" not in candidates(service)
    assert service.client.delete(f"/v1/tasks/{task}").status_code == 204
    assert_problem(register(service, run), 404, "unknown-finetune")


def test_only_ones_own_cards_can_be_deleted(service: Service) -> None:
    for name in (names_of(service)[0], "nobodys"):
        assert_problem(service.client.delete(f"/v1/candidates/{name}"), 404, "unknown-card")


def test_nobody_writes_down_a_run_as_weights(service: Service, run: str) -> None:
    card = register(service, run, name="zoo").json() | {"name": "mine"}
    assert_problem(service.client.post("/v1/candidates", json=card), 403, "weights-not-allowed")


def test_what_has_no_model_or_will_not_last_is_not_registered(
    service: Service, task: str, run: str
) -> None:
    accepted = ask(service, task, names_of(service)[0]).json()
    assert_problem(register(service, accepted["id"]), 409, "finetune-not-ended")
    assert_problem(register(service, "0" * 32), 404, "unknown-finetune")
    assert_problem(register(service, run, name="No Name"), 422, "request-invalid")
    with service.resources.database.session() as session:
        session.scalars(select(Task).where(Task.id == task)).one().expires_at = now() + timedelta(1)
    assert_problem(register(service, run), 409, "task-not-kept")


def test_the_run_of_another_tenant_is_neither_registered_nor_gone_on_from(
    service: Service, run: str
) -> None:
    register(service, run, name="zoo")
    with service.resources.database.session() as session:
        session.scalars(select(Finetune)).one().tenant = "somebody else"
    assert_problem(register(service, run, name="again"), 404, "unknown-finetune")
    assert_problem(ask(service, service.ready(seed=2), "zoo"), 404, "unknown-finetune")


def test_a_model_that_is_gone_is_not_gone_on_from(service: Service, run: str) -> None:
    register(service, run, name="zoo")
    lose_model(service)
    assert_problem(ask(service, service.ready(seed=2), "zoo"), 404, "model-gone")


def test_a_model_is_neither_judged_nor_asked_on_what_it_was_trained_on(
    service: Service, task: str, run: str
) -> None:
    register(service, run, name="zoo")
    other = service.ready(seed=2)
    assert_problem(ask(service, task, "zoo"), 422, "candidate-knows-task")
    assert ask(service, other, "zoo").status_code == 202
    scores = f"/v1/tasks/{task}/scores"
    answer = service.client.post(scores, json={"candidates": ["zoo"]})
    assert_problem(answer, 422, "candidate-knows-task")
    assert "zoo" not in service.client.post(scores, json={}).json()["candidates"]
    assert "zoo" in service.client.post(f"/v1/tasks/{other}/scores", json={}).json()["candidates"]

    grandchild = ended(service, other, "zoo")
    register(service, grandchild, name="zoo-2")
    assert_problem(ask(service, task, "zoo-2"), 422, "candidate-knows-task")


def test_scores_go_with_the_card_whose_they_are(service: Service, task: str, run: str) -> None:
    register(service, run, name="zoo")
    scores = f"/v1/tasks/{service.ready(seed=2)}/scores"
    service.client.post(scores, json={"candidates": ["zoo"]})
    assert len(service.client.get(scores).json()["scores"]) == 1
    assert service.client.delete("/v1/candidates/zoo").status_code == 204
    assert service.client.get(scores).json()["scores"] == []
