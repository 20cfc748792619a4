"""Asking to be called; that calls are made is tested in tests/jobs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.api.conftest import Service, assert_problem
from tests.api.runs import ask, ended, names_of
from tests.images import png

URL = "https://hooks.example/done"
IMAGES = {"archive": ("a.png", png(), "image/png")}


@pytest.fixture
def allowed(serve: Callable[..., Service]) -> Service:
    return serve(callback_prefixes=("https://hooks.example/",))


def test_a_callback_outside_what_the_operator_allows_is_refused_and_no_task_is_made(
    service: Service,
) -> None:
    answer = service.send(callback_url=URL)
    problem = assert_problem(answer, 403, "callback-not-allowed")
    assert "TASK2VEC_CALLBACK_PREFIXES" in problem["remedy"]
    assert service.client.get("/v1/tasks").json()["items"] == []


def test_a_callback_takes_a_secret_first(allowed: Service) -> None:
    assert_problem(allowed.send(callback_url=URL), 409, "callback-secret-missing")
    made = allowed.client.post("/v1/callback-secret")
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    once = {"Idempotency-Key": "k"}
    first, again = (allowed.client.post("/v1/callback-secret", headers=once) for _ in range(2))
    assert first.json()["secret"] != made.json()["secret"]
    assert (again.status_code, again.json().get("secret")) == (201, None)
    job_id = allowed.send(callback_url=URL).json()["job_id"]
    callback = allowed.client.get(f"/v1/jobs/{job_id}").json()["callback"]
    assert (callback["url"], callback["state"], callback["attempts"]) == (URL, "pending", 0)


def test_runs_and_scores_are_told_of_too_and_who_asks_for_none_has_none(allowed: Service) -> None:
    allowed.client.post("/v1/callback-secret")
    task = allowed.ready()
    candidate = names_of(allowed)[0]
    run = ask(allowed, task, candidate, callback_url=URL).json()
    body = {"candidates": [candidate], "callback_url": URL}
    scores = allowed.client.post(f"/v1/tasks/{task}/scores", json=body).json()
    for accepted in (run, scores):
        job = allowed.client.get(f"/v1/jobs/{accepted['job_id']}").json()
        assert job["callback"]["url"] == URL
    silent = ask(allowed, task, candidate).json()
    assert allowed.client.get(f"/v1/jobs/{silent['job_id']}").json()["callback"] is None
    model = ended(allowed, task)
    address = f"/v1/finetunes/{model}/predictions"
    for url, status in (("https://evil.example/", 403), (URL, 202)):
        metadata = json.dumps({"callback_url": url})
        answer = allowed.client.post(address, files=IMAGES, data={"metadata": metadata})
        assert answer.status_code == status
    job = allowed.client.get(f"/v1/jobs/{answer.json()['job_id']}").json()
    assert job["callback"]["state"] == "pending"
