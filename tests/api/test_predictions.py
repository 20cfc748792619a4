"""Images sent to a run's model, and its answers; what classifies is tested in tests/jobs."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from sqlalchemy import select

from app.embedding.labels import parse_labels
from app.store import predictions
from app.store.tables import Finetune, Outbox, Prediction
from tests.api.conftest import ARCHIVE, Service, archive_of, assert_problem
from tests.api.runs import ask, ended, lose_model, names_of
from tests.images import png

SINGLE = {
    "label_kind": "single_label",
    "classes": ["cat", "dog"],
    **predictions.packed([[(1, 0.75), (0, 0.25)], [(0, 0.5), (1, 0.5)]]),
    "images": {"a.png": 0, "=b.png": 1},
    "refused": {"c.txt": "not an image"},
}
MULTI = {
    "label_kind": "multi_label",
    "classes": ["light", "red"],
    **predictions.packed([[(1, 0.9), (0, 0.6)], []]),
    "images": {"a.png": 0, "b.png": 1},
    "refused": {},
}


@pytest.fixture
def run(service: Service) -> str:
    return ended(service, service.ready())


def send(service: Service, run: str, images: bytes = ARCHIVE, **asked: Any) -> Any:
    return service.send(images, f"/v1/finetunes/{run}/predictions", **asked)


def answered(service: Service, run: str, result: dict[str, Any]) -> str:
    """The address of an answer as a worker left it."""
    accepted = send(service, run).json()
    token = service.start(accepted["job_id"])
    with service.resources.database.session() as session:
        predictions.finish(session, accepted["job_id"], token, result)
    address: str = accepted["links"]["self"]
    return address


def test_images_are_accepted_with_a_job_of_their_own(service: Service, run: str) -> None:
    answer = send(service, run, k=3, threshold=0.2)
    assert answer.status_code == 202
    accepted = answer.json()
    assert answer.headers["location"] == f"/v1/predictions/{accepted['id']}"
    seen = service.client.get(answer.headers["location"]).json()
    assert (seen["finetune_id"], seen["state"], seen["k"], seen["threshold"]) == (
        run,
        "queued",
        3,
        0.2,
    )
    assert (seen["images"], seen["probabilities"]) == ([], None)
    job = service.client.get(f"/v1/jobs/{accepted['job_id']}").json()
    assert (job["kind"], job["state"], job["result"]) == ("predict", "queued", None)
    task = service.client.get(f"/v1/tasks/{job['task_id']}").json()
    assert (task["status"], task["job_id"] == accepted["job_id"]) == ("ready", False)
    with service.resources.database.session(read_only=True) as session:
        assert accepted["job_id"] in session.scalars(select(Outbox.job_id)).all()


def test_a_single_image_needs_no_archive(service: Service, run: str) -> None:
    accepted = send(service, run, png())
    assert accepted.status_code == 202
    with service.resources.database.session(read_only=True) as session:
        assert session.scalars(select(Prediction.name)).all() == ["animals.zip"]
    assert_problem(service.send(png()), 415, "archive-unsupported")


def test_the_same_request_again_is_one_job(service: Service, run: str) -> None:
    first, second = (send(service, run, key="once") for _ in range(2))
    assert first.json() == second.json()
    assert_problem(send(service, run, png(), key="once"), 422, "idempotency-key-reused")
    with service.resources.database.session(read_only=True) as session:
        assert len(session.scalars(select(Prediction)).all()) == 1


def test_an_answer_names_the_most_probable_class_and_what_was_left_out(
    service: Service, run: str
) -> None:
    answer = service.client.get(answered(service, run, SINGLE)).json()
    assert answer["state"] == "succeeded"
    assert (answer["probabilities"], answer["calibration_error"]) == ("softmax", 0.1)
    assert answer["images"][0] == {
        "name": "a.png",
        "class": "dog",
        "probability": 0.75,
        "classes": [{"name": "dog", "probability": 0.75}, {"name": "cat", "probability": 0.25}],
    }
    assert answer["refused"] == [{"name": "c.txt", "reason": "not an image"}]


def pages(service: Service, address: str, **asked: Any) -> list[dict[str, Any]]:
    found = [service.client.get(address, params=asked).json()]
    while cursor := found[-1]["next_cursor"]:
        found.append(service.client.get(address, params=asked | {"cursor": cursor}).json())
    return found


def test_an_answer_comes_in_pages_of_images_then_of_what_was_left_out(
    service: Service, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {f"{n}.txt": "not an image" for n in range(3)}
    copies = {f"{n}.png": n % 2 for n in range(5)}
    address = answered(service, run, SINGLE | {"images": copies, "refused": refused})
    files = [*copies, *refused]
    for limit in (1, 2, 3, 5, 6, 8, 100):
        found = pages(service, address, limit=limit)
        told = [[file["name"] for file in page["images"] + page["refused"]] for page in found]
        assert told == [files[n : n + limit] for n in range(0, len(files), limit)]
        assert {len(page["classes"]) for page in found} == {2}
    monkeypatch.setattr(predictions, "PAGE_LISTED", 5)
    assert [len(page["images"]) for page in pages(service, address)] == [2, 2, 1]
    monkeypatch.setattr(predictions, "PAGE_LISTED", 1)
    assert [len(page["images"]) for page in pages(service, address)] == [1, 1, 1, 1, 1]
    table = service.client.get(address, params={"format": "csv", "limit": 1}).text
    assert len(table.splitlines()) == 1 + len(copies), "a table is whole"


def test_a_cursor_is_of_one_answer(service: Service, run: str) -> None:
    one, other = (answered(service, run, SINGLE) for _ in range(2))
    cursor = service.client.get(one, params={"limit": 1}).json()["next_cursor"]
    for address, wrong in ((other, cursor), (one, "x")):
        answer = service.client.get(address, params={"cursor": wrong})
        assert_problem(answer, 422, "cursor-invalid")
    assert_problem(service.client.get(one, params={"limit": 0}), 422, "request-invalid")


def test_a_long_table_comes_whole_in_pieces(service: Service, run: str) -> None:
    names = {f"{n:0200}.png": n % 2 for n in range(1_000)}
    address = answered(service, run, SINGLE | {"images": names, "refused": {}})
    params = {"format": "csv"}
    with service.client.stream("GET", address, params=params) as answer:
        assert "content-length" not in answer.headers
        rows = list(csv.DictReader(io.StringIO(answer.read().decode())))
    assert [row["file"] for row in rows] == list(names)


def test_of_several_labels_there_may_be_none(service: Service, run: str) -> None:
    with service.resources.database.session() as session:
        row = session.scalars(select(Finetune)).one()
        row.result = {"verdict": {"calibration": 0.04}}
    answer = service.client.get(answered(service, run, MULTI)).json()
    assert (answer["probabilities"], answer["calibration_error"]) == ("sigmoid", 0.04)
    first, second = answer["images"]
    assert (first["class"], len(first["classes"])) == ("red", 2)
    assert (second["class"], second["probability"], second["classes"]) == (None, None, [])


def test_a_table_is_a_labels_file_that_says_what_the_model_did(service: Service, run: str) -> None:
    signed = SINGLE | {"classes": ["+1", "-1"]}
    address = answered(service, run, signed)
    answer = service.client.get(address, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert (rows[0]["classes"], rows[0]["probabilities"]) == ("-1|+1", "0.75|0.25")
    assert read_back(answer.content) == {"a.png": ("-1",), "=b.png": ("+1",)}
    several = service.client.get(
        answered(service, run, MULTI | {"refused": {"c.txt": "not an image"}}),
        params={"format": "csv"},
    )
    assert read_back(several.content) == {"a.png": ("light", "red"), "b.png": ()}


def read_back(table: bytes) -> dict[str, tuple[str, ...]]:
    return {file: row.labels for file, row in parse_labels("labels.csv", table, 10).items()}


def test_there_is_no_table_of_what_has_not_ended(service: Service, run: str) -> None:
    address = send(service, run).headers["location"]
    assert_problem(
        service.client.get(address, params={"format": "csv"}), 409, "prediction-not-ended"
    )


def test_what_cannot_be_classified_is_refused_and_nothing_of_it_kept(service: Service) -> None:
    task = service.ready()
    run = ended(service, task)
    before = len(service.blobs())
    mine = archive_of({"a.png": png("pink")})
    accepted = ask(service, task, names_of(service)[0]).json()
    assert_problem(send(service, accepted["id"], mine), 409, "finetune-not-ended")
    assert_problem(send(service, "0" * 32, mine), 404, "unknown-finetune")
    assert_problem(send(service, run, archive_of({})), 422, "archive-empty")
    assert_problem(send(service, run, b"%PDF-1.7"), 415, "archive-unsupported")
    for wrong in ({"k": 0}, {"threshold": 1}, {"name": "x"}):
        assert_problem(send(service, run, mine, **wrong), 422, "request-invalid")
    lose_model(service)
    assert_problem(send(service, run, mine), 404, "model-gone")
    assert len(service.blobs()) == before - 1  # the model


def test_runs_and_answers_are_their_tenants_alone(service: Service, run: str) -> None:
    address = answered(service, run, SINGLE)
    with service.resources.database.session() as session:
        session.scalars(select(Finetune)).one().tenant = "somebody else"
        session.scalars(select(Prediction)).one().tenant = "somebody else"
    assert_problem(send(service, run), 404, "unknown-finetune")
    assert_problem(service.client.get(address), 404, "unknown-prediction")


def test_a_job_can_be_taken_back_before_it_began_and_its_images_go(
    service: Service, run: str
) -> None:
    before = service.blobs()
    mine = archive_of({"a.png": png("pink")})
    accepted = send(service, run, mine, key="once").json()
    assert len(service.blobs()) == len(before) + 1
    assert service.client.delete(accepted["links"]["job"]).json()["state"] == "cancelled"
    assert service.client.get(accepted["links"]["self"]).json()["state"] == "cancelled"
    assert service.blobs() == before
    again = send(service, run, mine, key="once")
    assert (again.json(), again.headers["idempotency-replayed"]) == (accepted, "true")
    assert service.blobs() == before, "nobody waits for what was sent again"


def test_images_that_are_waited_for_stay_when_they_are_sent_again(
    service: Service, run: str
) -> None:
    mine = archive_of({"a.png": png("pink")})
    first = send(service, run, mine, key="once").json()
    kept = service.blobs()
    second = send(service, run, mine).json()
    send(service, run, mine, key="once")
    service.client.delete(first["links"]["job"])
    assert service.blobs() == kept, "the second job is still to look at them"
    service.client.delete(second["links"]["job"])
    assert len(service.blobs()) == len(kept) - 1
