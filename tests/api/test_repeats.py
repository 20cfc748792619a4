from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api.conftest import SPACE, Service, archive_of, assert_problem, embedding_of

pytestmark = pytest.mark.engines("embedded", "servers")


def test_the_same_key_and_request_get_the_same_answer_and_one_task(service: Service) -> None:
    first = service.send(key="k1", name="animals")
    again = service.send(key="k1", name="animals")
    assert again.status_code == first.status_code == 202
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert len(service.client.get("/v1/tasks").json()["items"]) == 1


def test_the_same_key_with_other_metadata_archive_or_path_is_refused(service: Service) -> None:
    service.send(key="k1", name="animals")
    other_archive = archive_of({"cat/9.png": b"another"})
    for answer in (
        service.send(key="k1", name="plants"),
        service.send(other_archive, key="k1", name="animals"),
        service.client.post(
            "/v1/distances", json={"tasks": ["x"]}, headers={"Idempotency-Key": "k1"}
        ),
    ):
        assert_problem(answer, 422, "idempotency-key-reused")
    assert len(service.blobs()) == 1


def test_a_refused_request_does_not_use_its_key_up(service: Service) -> None:
    assert service.send(b"no archive", key="k1").status_code == 415
    assert service.send(key="k1").status_code == 202


def test_twins_at_the_same_time_make_one_task(service: Service) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: service.send(key="k1", name="animals"), range(4)))
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert accepted
    assert len({answer.json()["id"] for answer in accepted}) == 1
    for answer in answers:
        if answer.status_code != 202:
            assert_problem(answer, 409, "idempotency-key-in-use")
            assert answer.headers["retry-after"]
    assert len(service.client.get("/v1/tasks").json()["items"]) == 1


@pytest.mark.parametrize("key", ["", "with space", "x" * 201])
def test_a_malformed_key_is_refused(service: Service, key: str) -> None:
    body = {"vector": [1.0], "space_id": SPACE}
    answer = service.client.post("/v1/neighbours", json=body, headers={"Idempotency-Key": key})
    assert_problem(answer, 422, "request-invalid")


def test_a_repeated_question_is_answered_again(service: Service) -> None:
    service.ready(seed=1)
    body = {"vector": embedding_of(2).vector.tolist(), "space_id": SPACE}
    headers = {"Idempotency-Key": "k2"}
    first = service.client.post("/v1/neighbours", json=body, headers=headers)
    assert first.json() == service.client.post("/v1/neighbours", json=body, headers=headers).json()
    answer = service.client.post("/v1/neighbours", json={**body, "k": 3}, headers=headers)
    assert_problem(answer, 422, "idempotency-key-reused")


def test_a_card_is_added_once_however_often_it_is_sent(service: Service) -> None:
    card = service.client.get("/v1/devices").json()["items"][0] | {"name": "mine"}
    for _ in range(2):
        answer = service.client.post("/v1/devices", json=card, headers={"Idempotency-Key": "k3"})
        assert answer.status_code == 201, answer.text
