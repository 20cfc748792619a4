"""What features tell: asked for, read, and in the estimates; tests/jobs looks at images for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.catalogue import CandidateCard
from app.errors import Unavailable
from app.settings import shared_directory
from app.store import cards, jobs, outcomes, scores, workers
from tests.api.conftest import Service, assert_problem

LITE0 = "tf_efficientnet_lite0.in1k"
SCORES = {"ridge": 0.9, "ridge_half": 0.8, "knn": 0.7, "logme": -0.5}


@pytest.fixture(scope="module")
def models_dir(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a candidate whose weights are at hand, and outcomes that ship."""
    shipped, directory = shared_directory("models"), tmp_path_factory.mktemp("scored")
    for kind in models_dir.iterdir():
        if kind.name != "candidates":
            (directory / kind.name).symlink_to(kind)
    (directory / "outcomes").symlink_to(shipped / "outcomes")
    (directory / "candidates").mkdir()
    for card in (*models_dir.glob("candidates/*"), shipped / "candidates" / f"{LITE0}.toml"):
        (directory / "candidates" / card.name).symlink_to(card)
    return directory


def ask(service: Service, task: str, **asked: Any) -> Any:
    return service.client.post(f"/v1/tasks/{task}/scores", json=asked)


def read(service: Service, task: str) -> dict[str, dict[str, Any]]:
    answer = service.client.get(f"/v1/tasks/{task}/scores").json()
    assert answer["task"] == task
    return {row["candidate"]: row for row in answer["scores"]}


def tell(service: Service, job_id: str, **changes: float) -> None:
    """As a worker does it."""
    token = service.start(job_id)
    with service.resources.database.session() as session:
        for row in scores.of_job(session, job_id):
            told = {**SCORES, **changes}
            scores.tell(session, job_id, token, row.seq, n_images=100, scores=told)
        jobs.finish_job(session, job_id, token, "succeeded")


def estimates(service: Service, task: str, **asked: Any) -> dict[str, dict[str, Any]]:
    answer = service.client.get(f"/v1/tasks/{task}/estimates", params={"k": 1000, **asked})
    return {row["candidate"]: row for row in answer.json()["estimates"]}


def test_what_workers_have_is_what_is_asked_about_and_marked(service: Service) -> None:
    task = service.ready()
    assert {row["weights_here"] for row in estimates(service, task).values()} == {None}
    service.warm_up()
    with service.resources.database.session() as session:
        keys = {
            card.name: card.weights_key
            for card in cards.list_cards(session, "local", CandidateCard)
        }
        fetched = next(name for name in keys if name != LITE0)
        workers.tell_weights(session, "w1", [keys[fetched]])
    same_file = {name for name, key in keys.items() if key == keys[fetched]}
    here = {name for name, row in estimates(service, task).items() if row["weights_here"]}
    assert here == same_file
    assert set(ask(service, task).json()["candidates"]) == same_file


def test_without_names_those_are_asked_about_whose_weights_are_at_hand(service: Service) -> None:
    task = service.ready()
    answer = ask(service, task)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/tasks/{task}/scores"
    assert answer.json()["candidates"] == [LITE0]
    job = service.client.get(f"/v1/jobs/{answer.json()['job_id']}").json()
    assert (job["kind"], job["state"], job["task_id"]) == ("score", "queued", task)
    assert {row["state"] for row in read(service, task).values()} == {"pending"}


def test_what_is_told_is_read_and_not_asked_for_again(service: Service) -> None:
    task = service.ready()
    tell(service, ask(service, task, candidates=[LITE0]).json()["job_id"])
    row = read(service, task)[LITE0]
    assert (row["state"], row["n_images"], row["scores"]) == ("scored", 100, SCORES)
    again = ask(service, task, candidates=[LITE0]).json()
    assert again == {"job_id": None, "candidates": [LITE0]}


def test_a_candidate_that_could_not_be_looked_through_says_why(service: Service) -> None:
    task = service.ready()
    job_id = ask(service, task, candidates=[LITE0]).json()["job_id"]
    token = service.start(job_id)
    with service.resources.database.session() as session:
        (row,) = scores.of_job(session, job_id)
        problem = Unavailable("weights-unavailable", "They are gone.", "").problem()
        scores.tell(session, job_id, token, row.seq, problem=problem)
        jobs.finish_job(session, job_id, token, "succeeded")
    told = read(service, task)[LITE0]
    assert (told["state"], told["scores"]) == ("failed", None)
    assert told["problem"]["detail"] == "They are gone."
    assert ask(service, task, candidates=[LITE0]).json()["job_id"] != job_id


def test_a_cancelled_job_leaves_nothing_pending(service: Service) -> None:
    task = service.ready()
    job_id = ask(service, task, candidates=[LITE0]).json()["job_id"]
    service.client.delete(f"/v1/jobs/{job_id}")
    assert read(service, task)[LITE0]["state"] == "cancelled"


def test_files_of_the_server_are_not_looked_into_for_a_tenants_own_card(service: Service) -> None:
    task = service.ready()
    found = service.client.get("/v1/candidates").json()["items"]
    card = next(each for each in found if each["name"] == LITE0)
    for name, source in (("mine", "file:/etc/hostname"), ("ours", "package:timm/../secrets")):
        weights = {"source": source, "sha256": "0" * 64}
        added = service.client.post(
            "/v1/candidates", json={**card, "name": name, "weights": weights}
        )
        assert added.status_code == 201
        assert_problem(ask(service, task, candidates=[name]), 403, "weights-not-allowed")
    assert ask(service, task).json()["candidates"] == [LITE0]


def test_the_estimate_takes_them_in_and_says_so(service: Service) -> None:
    easy, hard = service.ready(1), service.ready(2)
    before = estimates(service, easy, recipe="head_only")[LITE0]
    assert before["ridge_accuracy"] is None
    for task, ridge in ((easy, 0.95), (hard, 0.4)):
        job_id = ask(service, task, candidates=[LITE0]).json()["job_id"]
        tell(service, job_id, ridge=ridge)
    rows = [estimates(service, task, recipe="head_only")[LITE0] for task in (easy, hard)]
    assert [row["ridge_accuracy"] for row in rows] == [0.95, 0.4]
    assert rows[0]["accuracy"]["typical"] > rows[1]["accuracy"]["typical"] + 0.2
    assert any(line.startswith("ridge_accuracy: ") for line in rows[0]["basis"])

    def width(row: dict[str, Any]) -> float:
        return float(row["accuracy"]["high"] - row["accuracy"]["low"])

    assert width(rows[0]) < width(before)


def test_outcomes_are_learnt_from_beside_what_was_told_of_their_task(service: Service) -> None:
    task = service.ready()
    tell(service, ask(service, task, candidates=[LITE0]).json()["job_id"])
    run = {"task": task, "model": LITE0, "metric": "accuracy", "value": 0.9, "recipe": "full"}
    assert service.client.post("/v1/outcomes", json=run).status_code < 300
    with service.resources.database.session(read_only=True) as session:
        (row,) = outcomes.evidence(session, "local").runs.to_dicts()
    assert (row["score_ridge"], row["score_logme"]) == (SCORES["ridge"], SCORES["logme"])


def test_what_cannot_be_asked_is_refused(service: Service) -> None:
    task = service.ready()
    assert_problem(ask(service, "nowhere"), 404, "unknown-task")
    assert_problem(ask(service, task, candidates=["brain"]), 422, "unknown-card")
    assert_problem(ask(service, task, candidates=[]), 422, "request-invalid")
    assert_problem(service.client.get("/v1/tasks/nowhere/scores"), 404, "unknown-task")


def test_the_same_request_again_begins_nothing_new(service: Service) -> None:
    task = service.ready()
    headers = {"Idempotency-Key": "once"}
    first, second = (
        service.client.post(f"/v1/tasks/{task}/scores", json={}, headers=headers) for _ in range(2)
    )
    assert first.json() == second.json()
