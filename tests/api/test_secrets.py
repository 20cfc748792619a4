"""Keys, tokens and passwords show in no log, no traceback, no answer and no line of the command line."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy.exc import IntegrityError

from app.settings import Settings
from app.store import cards, keys
from app.store.session import Database
from tests.api.conftest import ARCHIVE, Service
from tests.issuer import AUDIENCE, local_issuer

PASSWORD = "hunter2-of-the-database"
FAR_DATABASE = f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/none"
FILES = {"archive": ("a.zip", ARCHIVE)}

ENGINE = """
import sys
from app.telemetry import configure_logging
from app.jobs.engine import DbosEngine
configure_logging()
DbosEngine(sys.argv[1], executor_id="one", poll_interval_seconds=1.0).start(print)
"""


def run(*command: str, **environment: str) -> str:
    """Both its outputs; it fails."""
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "TASK2VEC_DEBUG": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    return done.stdout


def test_keys_and_tokens_are_in_no_log_and_no_answer(
    serve: Callable[..., Service],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    with local_issuer() as issuer:
        service = serve(auth="required", oidc_issuer=issuer.url, oidc_audience=AUDIENCE)
        with service.resources.database.session() as session:
            valid, ended = (keys.create_key(session, "acme", "x") for _ in range(2))
            keys.revoke_key(keys.find(session, ended))
        tokens = [issuer.token(), issuer.token(exp=1), issuer.token(aud="x")]
        secrets = [valid, ended, "t2v_never-made", *tokens]
        answers = []

        def ask(method: str, path: str, **asked: Any) -> None:
            for secret in secrets:
                headers = {"Authorization": f"Bearer {secret}"}
                answers.append(service.client.request(method, path, headers=headers, **asked))

        ask("GET", "/v1/tasks")
        ask("POST", "/v1/tasks", files=FILES)
        ask("GET", "/v1/keys")
        failures = (
            RuntimeError("unexpected"),
            IntegrityError("INSERT", {"digest": "a secret"}, Exception("twice")),
        )
        for failure in failures:
            monkeypatch.setattr(cards, "list_cards", Mock(side_effect=failure))
            ask("GET", "/v1/probes")
        monkeypatch.undo()
        issuer.up = False
        service.resources.provider._fetched = None
        service.resources.provider._asked = float("-inf")
        ask("GET", "/v1/tasks")
    assert {200, 202, 401, 403, 500, 503} <= {answer.status_code for answer in answers}
    assert "request.failed" in caplog.text
    assert "oidc.unavailable" in caplog.text
    told = caplog.text + "".join(answer.text + str(answer.headers) for answer in answers)
    assert [secret for secret in secrets if secret[4:] in told] == []


def test_what_a_statement_was_given_is_not_in_its_error(
    serve: Callable[..., Service],
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = serve()
    with pytest.raises(IntegrityError) as caught, service.resources.database.session() as session:
        for _ in range(2):
            secret = keys.create_key(session, "acme", "x")
            keys.find(session, secret).digest = "the same twice"
            session.flush()
    assert "the same twice" not in str(caught.value)


def test_the_password_of_a_database_that_does_not_answer_is_in_no_log(
    serve: Callable[..., Service],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    service = serve()
    away = replace(service.resources, database=Database(FAR_DATABASE))
    service.client.app.state.resources = away
    answers = [service.client.get(path) for path in ("/v1/tasks", "/readyz")]
    answers.append(service.client.post("/v1/tasks", files=FILES))
    assert {answer.status_code for answer in answers} == {503}
    assert "store.unavailable" in caplog.text
    assert PASSWORD not in caplog.text + "".join(answer.text for answer in answers)
    service.client.app.state.resources = service.resources


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "app.cli", "keys", "list"),
        ("-m", "app.cli", "serve", "--no-worker", "--port", "0"),
        pytest.param(("-c", ENGINE, FAR_DATABASE), marks=pytest.mark.slow),
    ],
)
def test_the_password_of_a_database_is_in_no_traceback(command: tuple[str, ...]) -> None:
    told = run(*command, TASK2VEC_DATABASE_URL=FAR_DATABASE)
    assert "Traceback" in told or "service.failed" in told or "not start" in told
    assert PASSWORD not in told


def test_a_setting_that_does_not_fit_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TASK2VEC_JOBS_URL", f"mysql://me:{PASSWORD}@host/jobs")
    with pytest.raises(ValueError, match="mysql") as caught:
        Settings()
    assert PASSWORD not in str(caught.value)
    monkeypatch.setenv("TASK2VEC_JOBS_URL", FAR_DATABASE)
    assert PASSWORD not in repr(Settings())


def test_a_bucket_does_not_come_with_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK2VEC_BLOB_URL", f"s3://id:{PASSWORD}@bucket/tasks")
    with pytest.raises(ValueError, match="leave keys out") as caught:
        Settings()
    assert PASSWORD not in str(caught.value)


def test_the_secret_of_a_store_of_archives_is_in_no_log(
    serve: Callable[..., Service],
    s3: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)
    service = serve(blob_url=f"{s3}-that-nobody-made/tasks")
    answer = service.send()
    assert answer.status_code == 503
    assert PASSWORD not in caplog.text + answer.text
