"""Every route and everybody who may ask: what comes, what is written down, and that nothing of one
tenant's reaches another. A route without an entry fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.api import deeds
from app.api.main import create_app
from app.embedding.strips import Strip
from app.jobs.atlas import refresh
from app.scopes import SCOPES, allows
from app.settings import Settings
from app.store import keys, strips
from app.store.tables import AuditEvent, Base, Embedding, Task, now
from tests.api import test_parts as parts
from tests.api.conftest import (
    ARCHIVE,
    LIBRARY_SPACE,
    Service,
    assert_problem,
    embedding_of,
)
from tests.api.runs import ask, ended, names_of
from tests.api.test_predictions import SINGLE, answered
from tests.conftest import asked_for
from tests.engines import EMBEDDED, SERVERS, Engines, emptied, unused

FILES = {"archive": ("animals.zip", ARCHIVE, "application/zip")}
TIME = {"low": 0.5, "typical": 0.6, "high": 0.7}
RUN = {"recipe": "full", "device": "cpu-2core", "metric": "accuracy", "value": 0.9}
TABLE = "task,model,metric,value\nelsewhere,{candidate},accuracy,0.5\n"
HIDDEN, EMPTY, NAMED = "404", "nothing of theirs", "nothing of theirs but what one named oneself"


@dataclass
class World:
    """A service that asks for keys, with one of everything that belongs to the tenant `local`."""

    service: Service
    ids: dict[str, str]
    secrets: dict[str, str] = field(default_factory=dict)
    of_bob: set[str] = field(default_factory=set)
    made: int = 0

    def new_name(self) -> str:
        self.made += 1
        return f"own-{self.made}"

    def ask(self, method: str, path: str, who: str | None, **asked: Any) -> Any:
        headers = asked.pop("headers", {})
        if who is not None:
            headers["Authorization"] = f"Bearer {self.secrets[who]}"
        client = self.service.client
        own = client.headers.pop("Authorization")
        try:
            return client.request(method, path, headers=headers, **asked)
        finally:
            client.headers["Authorization"] = own

    def events(self) -> list[AuditEvent]:
        with self.service.resources.database.session(read_only=True) as session:
            return list(session.scalars(select(AuditEvent).order_by(AuditEvent.seq)))

    # What is there to be deleted.

    def a_task(self) -> dict[str, str]:
        return {"task_id": self.service.send(name=self.new_name()).json()["id"]}

    def a_card(self, kind: str) -> dict[str, str]:
        name = self.new_name()
        self.service.client.post(f"/v1/{kind}", json=self.card(kind, name))
        return {"name": name}

    def a_timing(self) -> dict[str, str]:
        timing = self.timing(self.a_card("candidates")["name"])
        self.service.client.post("/v1/timings", json=timing)
        return {name: timing[name] for name in ("device", "candidate")}

    def timing(self, candidate: str) -> dict[str, Any]:
        return {
            "device": "cpu-2core",
            "candidate": candidate,
            "batch_size": 16,
            "step_seconds": TIME,
            "forward_seconds": TIME,
        }

    def a_key(self) -> dict[str, str]:
        return {"key_id": self.service.client.post("/v1/keys", json={"name": "x"}).json()["id"]}

    def an_upload(self, *, whole: bool = False) -> dict[str, str]:
        if self.service.resources.blobs.incoming is None:
            return {"upload_id": "0" * 32}
        begun = parts.begin(self.service, ARCHIVE, name=self.new_name())
        if whole:
            parts.put(begun, ARCHIVE)
        return {"upload_id": begun["id"]}

    def offers(self, name: str) -> bool:
        return name not in OF_A_BUCKET or self.service.resources.blobs.incoming is not None

    def card(self, kind: str, name: str | None = None) -> dict[str, Any]:
        shipped: dict[str, Any] = self.service.client.get(f"/v1/{kind}").json()["items"][0]
        return shipped | {"name": name or self.new_name()}


Asked = Callable[[World], dict[str, Any]]
Made = Callable[[World], dict[str, str]]


def nothing(_: World) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Route:
    """`needs` a scope; somebody of another tenant who has it gets `theirs`."""

    needs: str
    theirs: str
    asked: Asked = nothing
    fresh: Made = nothing


def body(**content: Any) -> Asked:
    return lambda _: {"json": content}


def vector(_: World) -> dict[str, Any]:
    asked = {"vector": embedding_of(1).vector.tolist(), "space_id": LIBRARY_SPACE}
    return {"json": {**asked, "metric": "cosine"}}


# Routes under /v1. What is only listed or made has no other tenant's to hide; what a path or a body
# names is not there for others.
MATRIX = {
    "POST /v1/tasks": Route("write", EMPTY, lambda w: {"files": FILES}),
    "POST /v1/uploads": Route(
        "write", EMPTY, lambda w: {"json": parts.asked(ARCHIVE, name=w.new_name())}
    ),
    "GET /v1/uploads/{upload_id}": Route("read", HIDDEN, fresh=World.an_upload),
    "POST /v1/uploads/{upload_id}/complete": Route(
        "write", HIDDEN, fresh=lambda w: w.an_upload(whole=True)
    ),
    "DELETE /v1/uploads/{upload_id}": Route("write", HIDDEN, fresh=World.an_upload),
    "GET /v1/tasks": Route("read", EMPTY),
    "GET /v1/tasks/{task_id}": Route("read", HIDDEN),
    "PATCH /v1/tasks/{task_id}": Route("write", HIDDEN, body(tags=["fur"])),
    "DELETE /v1/tasks/{task_id}": Route("write", HIDDEN, fresh=World.a_task),
    "POST /v1/tasks/{task_id}/images": Route(
        "write",
        HIDDEN,
        lambda w: {"files": FILES},
        fresh=lambda w: {"task_id": w.service.ready(seed=w.made, name=w.new_name())},
    ),
    "GET /v1/tasks/{task_id}/intake": Route("read", HIDDEN),
    "GET /v1/tasks/{task_id}/classes": Route("read", HIDDEN),
    "GET /v1/tasks/{task_id}/classes/{number}/strip": Route("read", HIDDEN),
    "GET /v1/tasks/{task_id}/embedding": Route("read", HIDDEN),
    "GET /v1/embeddings": Route("read", EMPTY),
    "GET /v1/tasks/{task_id}/neighbours": Route("read", HIDDEN),
    "POST /v1/neighbours": Route("read", EMPTY, vector),
    "POST /v1/distances": Route(
        "read", HIDDEN, lambda w: {"json": {"tasks": [w.ids["task_id"], w.ids["twin"]]}}
    ),
    "GET /v1/tasks/{task_id}/estimates": Route("read", HIDDEN),
    "GET /v1/tasks/{task_id}/card": Route("read", HIDDEN),
    "GET /v1/tasks/{task_id}/plan": Route("read", HIDDEN),
    "GET /v1/estimator": Route("read", EMPTY),
    "POST /v1/outcomes": Route(
        "write",
        HIDDEN,
        lambda w: {"json": {**RUN, "task": w.ids["task_id"], "model": w.ids["candidate"]}},
    ),
    "POST /v1/outcomes:import": Route(
        "write",
        EMPTY,
        lambda w: {"content": TABLE.format(**w.ids), "headers": {"Content-Type": "text/csv"}},
    ),
    "GET /v1/outcomes": Route("read", EMPTY),
    "GET /v1/outcomes/{outcome_id}": Route("read", HIDDEN),
    "PATCH /v1/outcomes/{outcome_id}": Route("write", HIDDEN, body(quarantined=False)),
    "POST /v1/tasks/{task_id}/scores": Route("write", HIDDEN, body()),
    "GET /v1/tasks/{task_id}/scores": Route("read", HIDDEN),
    "POST /v1/tasks/{task_id}/finetunes": Route(
        "write", HIDDEN, lambda w: {"json": {"candidate": w.ids["candidate"]}}
    ),
    "GET /v1/finetunes": Route("read", EMPTY),
    "GET /v1/finetunes/{finetune_id}": Route("read", HIDDEN),
    "GET /v1/finetunes/{finetune_id}/events": Route("read", HIDDEN),
    "GET /v1/finetunes/{finetune_id}/{file}": Route("read", HIDDEN),
    "POST /v1/finetunes/{finetune_id}/predictions": Route(
        "write", HIDDEN, lambda w: {"files": FILES}
    ),
    "POST /v1/finetunes/{finetune_id}/candidate": Route(
        "write", HIDDEN, lambda w: {"json": {"name": w.new_name()}}
    ),
    "GET /v1/predictions/{prediction_id}": Route("read", HIDDEN),
    "GET /v1/candidates": Route("read", EMPTY),
    "POST /v1/candidates": Route("write", EMPTY, lambda w: {"json": w.card("candidates")}),
    "DELETE /v1/candidates/{name}": Route("write", HIDDEN, fresh=lambda w: w.a_card("candidates")),
    "GET /v1/devices": Route("read", EMPTY),
    "POST /v1/devices": Route("write", EMPTY, lambda w: {"json": w.card("devices")}),
    "DELETE /v1/devices/{name}": Route("write", HIDDEN, fresh=lambda w: w.a_card("devices")),
    "GET /v1/recipes": Route("read", EMPTY),
    "GET /v1/probes": Route("read", EMPTY),
    "GET /v1/timings": Route("read", EMPTY),
    "POST /v1/timings": Route(
        "write",
        EMPTY,
        lambda w: {"json": w.timing(w.ids["candidate"])},
    ),
    "DELETE /v1/timings/{device}/{candidate}": Route("write", HIDDEN, fresh=World.a_timing),
    "GET /v1/jobs": Route("read", EMPTY),
    "GET /v1/jobs/{job_id}": Route("read", HIDDEN),
    "DELETE /v1/jobs/{job_id}": Route("write", HIDDEN),
    "GET /v1/jobs/{job_id}/events": Route("read", HIDDEN),
    "GET /v1/atlas": Route("read", EMPTY),
    "GET /v1/usage": Route("read", EMPTY),
    "GET /v1/keys": Route("admin", EMPTY),
    "POST /v1/keys": Route("admin", EMPTY, body(name="another")),
    "POST /v1/keys/{key_id}/rotation": Route("admin", HIDDEN, body(), fresh=World.a_key),
    "DELETE /v1/keys/{key_id}": Route("admin", HIDDEN, fresh=World.a_key),
    "GET /v1/audit": Route("admin", NAMED),
    "POST /v1/callback-secret": Route("admin", EMPTY),
    "GET /v1/tenant": Route("read", EMPTY),
    "PATCH /v1/tenant": Route("admin", EMPTY, body(share_outcomes=False)),
}
# Pages, and an address of each that names what belongs to `local`.
PAGES = {
    "GET /": "/",
    "GET /tasks/{task_id}": "/tasks/{task_id}",
    "GET /tasks/{task_id}/estimates": "/tasks/{task_id}/estimates",
    "GET /tasks/{task_id}/runs": "/tasks/{task_id}/runs",
    "GET /runs/{finetune_id}": "/runs/{finetune_id}",
    "GET /compare": "/compare?task={task_id}&task={twin}",
    "GET /atlas": "/atlas",
    "GET /estimator": "/estimator",
    "GET /jobs": "/jobs",
    "GET /operation": "/operation",
}
OPEN = {
    "/static",
    *("GET /healthz", "GET /readyz", "GET /metrics"),
    *("GET /openapi.json", "GET /docs", "GET /redoc", "/docs/assets"),
    *("GET /login", "POST /login", "POST /logout"),
}
# Refused to everybody where archives lie on a disk.
OF_A_BUCKET = {name for name in MATRIX if "/v1/uploads" in name}
# That name nothing of anybody's.
SHARED = {
    *("GET /v1/estimator", "GET /v1/recipes", "GET /v1/probes", "GET /v1/timings"),
    *("GET /v1/usage", "GET /v1/tenant"),
}
# That look, and change nothing, though they are no GET.
LOOKING = {"POST /v1/neighbours", "POST /v1/distances"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--engines")
        engines = asked_for(metafunc.config, (EMBEDDED, SERVERS)) if asked else [EMBEDDED]
        metafunc.parametrize("world", engines, indirect=True, scope="module")


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, models_dir: Path
) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("authorisation")
    engines = Engines.embedded(directory)
    if request.param == SERVERS:
        postgresql, s3 = (request.getfixturevalue(name) for name in ("postgresql", "s3"))
        engines = Engines(SERVERS, emptied(postgresql), unused(s3))
    settings = Settings(
        **engines.settings,
        data_dir=directory / "data",
        models_dir=models_dir,
        auth="required",
        poll_interval_seconds=0.01,
    )
    app = create_app(settings)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        service = Service(client, app.state.resources)
        world = World(service, {})
        with service.resources.database.session() as session:
            for tenant in ("local", "bob"):
                for scope in SCOPES:
                    world.secrets[f"{tenant} {scope}"] = keys.create_key(
                        session, tenant, scope, scope=scope
                    )
            for state in ("expired", "revoked"):
                secret = keys.create_key(session, "local", state, scope="admin")
                world.secrets[state] = secret
                ending = keys.find(session, secret)
                if state == "expired":
                    ending.expires_at = now()
                else:
                    keys.revoke_key(ending)
            world.secrets["unknown"] = "t2v_unknown"
            world.ids["key_id"] = keys.find(session, world.secrets["local read"]).id
            world.of_bob = {f"key:{key.id}" for key in keys.list_keys(session, "bob")}
        client.headers["Authorization"] = f"Bearer {world.secrets['local admin']}"
        _furnish(world)
        yield world


def _furnish(world: World) -> None:
    service, ids = world.service, world.ids
    task, twin = (
        service.ready(seed=seed, space_id=LIBRARY_SPACE, name=world.new_name()) for seed in (1, 2)
    )
    ids |= {"task_id": task, "twin": twin, "candidate": names_of(service)[0], "file": "model"}
    ids["job_id"] = service.client.get(f"/v1/tasks/{task}").json()["job_id"]
    ids["finetune_id"] = ended(service, task, ids["candidate"])
    ids["prediction_id"] = answered(service, ids["finetune_id"], SINGLE).rpartition("/")[2]
    reported = {**RUN, "task": task, "model": ids["candidate"], "value": 0.8}
    ids["outcome_id"] = service.client.post("/v1/outcomes", json=reported).json()["id"]
    ids["name"] = world.a_card("candidates")["name"]
    service.client.post("/v1/devices", json=world.card("devices"))
    resources = service.resources
    with resources.database.session() as session:
        found = session.scalars(select(Task).where(Task.id == task)).one()
        embedding = session.get_one(Embedding, found.embedding_seq)
        strips.keep(session, embedding, [Strip("cat", b"own-cats")])
    ids["number"] = "0"
    refresh(resources.database, resources.indexes, threads=1, stop=lambda: False)


def test_every_route_has_an_entry_and_every_entry_a_route(world: World) -> None:
    served = {
        f"{method} {route.path}".strip()
        for route in iter_route_contexts(world.service.client.app.routes)
        for method in (route.methods or {""}) - {"HEAD"}
    }
    assert served == {*MATRIX, *OPEN, *PAGES}


def test_routes_beside_the_api_ask_for_no_key_and_tell_of_no_tenant(world: World) -> None:
    for address in OPEN - {"/docs/assets", "/static"}:
        method, _, path = address.partition(" ")
        answer = world.ask(method, path, None, follow_redirects=False)
        assert answer.status_code in (200, 303, 422, 503), address
        assert "own-" not in answer.text
        assert not any(each in answer.text for each in world.ids.values() if len(each) == 32)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_for_those_who_may_read_what_it_shows(world: World, name: str) -> None:
    address = PAGES[name].format(**world.ids)
    for who, status in ((None, 401), ("revoked", 401), ("local read", 200)):
        answer = world.ask("GET", address, who)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("text/html")
    answer = world.ask("GET", address, "bob admin")
    if address == PAGES[name]:
        assert answer.status_code == 200
        _assert_nothing_of_theirs(world, answer, sent={})
    else:
        assert answer.status_code == 404, answer.text


@pytest.mark.parametrize("name", MATRIX)
def test_a_route_answers_those_who_may_and_nobody_else(world: World, name: str) -> None:
    route = MATRIX[name]
    method, _, template = name.partition(" ")

    def ask(who: str | None) -> tuple[Any, list[AuditEvent]]:
        path = template.format(**world.ids | route.fresh(world))
        asked = route.asked(world)
        before = len(world.events())
        return world.ask(method, path, who, **asked), world.events()[before:]

    for who, code in (
        (None, "key-missing"),
        ("unknown", "key-unknown"),
        ("expired", "key-expired"),
        ("revoked", "key-revoked"),
    ):
        answer, written = ask(who)
        assert_problem(answer, 401, code)
        if who in ("expired", "revoked"):
            assert [(row.tenant, row.problem, row.status) for row in written] == [
                ("local", code, 401)
            ]
    for scope in SCOPES:
        for tenant in ("bob", "local"):
            answer, written = ask(f"{tenant} {scope}")
            if not allows(scope, route.needs):
                assert_problem(answer, 403, "scope-missing")
                assert [(row.tenant, row.problem) for row in written] == [(tenant, "scope-missing")]
                assert written[0].action == name
            elif not world.offers(name):
                assert_problem(answer, 409, "uploads-not-offered")
                assert written == []
            elif tenant == "bob" and route.theirs is HIDDEN:
                assert answer.status_code == 404, answer.text
                assert written == []
            else:
                assert 200 <= answer.status_code < 300, answer.text
                changes = method != "GET" and name not in LOOKING
                assert [(row.action, row.status, row.tenant, row.problem) for row in written] == (
                    [(name, answer.status_code, tenant, None)] if changes else []
                )
                if tenant == "local" and name not in SHARED and method == "GET":
                    assert _tells_own(world, answer)
                if tenant == "bob" and route.theirs is NAMED:
                    assert {row["actor"] for row in answer.json()["items"]} <= world.of_bob
                elif tenant == "bob":
                    _assert_nothing_of_theirs(world, answer, sent=route.asked(world))


def _tells_own(world: World, answer: Any) -> bool:
    """What nobody else may find, so that not finding it says something."""
    own = [
        value for name, value in world.ids.items() if name not in ("candidate", "file", "number")
    ]
    return any(value in answer.text for value in (*own, "own-", "weights", "event: ", "missing"))


def _assert_nothing_of_theirs(world: World, answer: Any, sent: dict[str, Any]) -> None:
    told = answer.text
    own = {
        value for name, value in world.ids.items() if name not in ("candidate", "file", "number")
    }
    assert [value for value in own if value in told] == []
    assert "bob" not in told
    if "json" not in sent:
        assert "own-" not in told


def test_what_one_tenant_names_of_anothers_is_not_there(world: World) -> None:
    """Ids in bodies and in queries, not only in paths."""
    task, ids = world.ids["task_id"], world.ids
    foreign = "bob write"
    for path, params in (
        ("/v1/jobs", {"task_id": task}),
        ("/v1/finetunes", {"task_id": task}),
        ("/v1/outcomes", {"task": task}),
        ("/v1/tasks", {"q": "own"}),
    ):
        answer = world.ask("GET", path, foreign, params=params)
        assert answer.status_code == 404 or answer.json()["items"] == [], path
    for change in ({"model": ids["name"]}, {"candidate": ids["name"]}):
        mine = world.ask("POST", "/v1/tasks", foreign, files=FILES).json()["id"]
        path = "/v1/outcomes" if "model" in change else f"/v1/tasks/{mine}/finetunes"
        answer = world.ask("POST", path, foreign, json={**RUN, "task": mine, **change})
        assert answer.status_code in (404, 422), answer.text


def test_a_cursor_of_another_tenant_leads_to_ones_own_rows_alone(world: World) -> None:
    for path in ("/v1/tasks", "/v1/jobs", "/v1/finetunes", "/v1/outcomes"):
        world.service.send(name=world.new_name())
        page = world.ask("GET", path, "local read", params={"limit": 1}).json()
        cursor = page["next_cursor"]
        if cursor is None:
            continue
        answer = world.ask("GET", path, "bob read", params={"cursor": cursor})
        assert answer.status_code == 200
        _assert_nothing_of_theirs(world, answer, sent={})
    cursor = world.ask("GET", "/v1/audit", "local admin", params={"limit": 1}).json()["next_cursor"]
    answer = world.ask("GET", "/v1/audit", "bob admin", params={"cursor": cursor, "limit": 9})
    assert {row["actor"] for row in answer.json()["items"]} <= world.of_bob


def test_an_archive_that_is_only_asked_about_needs_more_than_reading(world: World) -> None:
    answer = world.ask("POST", "/v1/neighbours", "local read", files=FILES)
    assert_problem(answer, 403, "scope-missing")
    assert world.ask("POST", "/v1/neighbours", "local write", files=FILES).status_code == 202


def test_a_key_of_another_tenant_does_not_repeat_ones_request(world: World) -> None:
    asked = {"json": {"name": "mine"}, "headers": {"Idempotency-Key": "same"}}
    first = world.ask("POST", "/v1/keys", "local admin", **asked).json()
    second = world.ask("POST", "/v1/keys", "bob admin", **asked).json()
    assert first["id"] != second["id"]


def test_the_secret_of_a_key_is_told_once_and_kept_nowhere(world: World) -> None:
    asked = {"json": {"name": "mine"}, "headers": {"Idempotency-Key": "told-once"}}
    first = world.ask("POST", "/v1/keys", "local admin", **dict(asked)).json()
    again = world.ask("POST", "/v1/keys", "local admin", **dict(asked))
    assert again.headers["idempotency-replayed"] == "true"
    secret = first.pop("secret")
    assert again.json() == first
    with world.service.resources.database.session(read_only=True) as session:
        for table in Base.metadata.sorted_tables:
            assert secret not in repr(session.execute(select(table)).all()), table
    found = world.ask("GET", "/v1/keys", "local admin", params={"prefix": secret[:12]}).json()
    assert [key["id"] for key in found["items"]] == [first["id"]]


def test_a_key_is_seen_once_its_answer_was_sent_and_once_a_minute(world: World) -> None:
    with world.service.resources.database.session() as session:
        secret = world.secrets["seldom"] = keys.create_key(session, "local", "seldom")

    def seen() -> Any:
        with world.service.resources.database.session(read_only=True) as session:
            return keys.find(session, secret).last_used_at

    assert seen() is None
    world.ask("GET", "/v1/tasks", "seldom")
    first = seen()
    assert first is not None
    world.ask("GET", "/v1/tasks", "seldom")
    assert seen() == first


def test_a_stream_ends_with_the_key_that_opened_it(world: World) -> None:
    with world.service.resources.database.session() as session:
        secret = world.secrets["leaving"] = keys.create_key(session, "local", "leaving")
    accepted = world.service.send(name=world.new_name()).json()
    run = ask(world.service, world.ids["task_id"], world.ids["candidate"]).json()["id"]
    headers = {"Authorization": f"Bearer {secret}"}
    for path in (f"/v1/jobs/{accepted['job_id']}/events", f"/v1/finetunes/{run}/events"):
        with world.service.resources.database.session() as session:
            keys.find(session, secret).revoked_at = None
        with world.service.client.stream("GET", path, headers=headers) as stream:
            with world.service.resources.database.session() as session:
                keys.revoke_key(keys.find(session, secret))
            assert "succeeded" not in stream.read().decode()  # returns: the job has not ended
        assert_problem(world.ask("GET", path, "leaving"), 401, "key-revoked")


def test_a_change_that_fails_leaves_no_row_and_one_that_is_repeated_no_second(
    world: World,
) -> None:
    before = len(world.events())
    unknown = {"json": {"tasks": []}, "headers": {}}
    assert world.ask("PATCH", "/v1/tasks/nowhere", "local write", json={}).status_code == 404
    assert world.ask("POST", "/v1/tasks", "local write", **unknown).status_code == 422
    assert len(world.events()) == before
    asked = {"files": FILES, "headers": {"Idempotency-Key": "one-row"}}
    accepted = [world.ask("POST", "/v1/tasks", "local write", **dict(asked)) for _ in range(2)]
    (row,) = world.events()[before:]
    assert row.object_id == accepted[0].json()["id"] == accepted[1].json()["id"]
    assert (row.action, row.address) == ("POST /v1/tasks", "testclient")


def test_a_change_whose_row_cannot_be_written_does_not_happen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        return len(
            world.ask("GET", "/v1/tasks", "local read", params={"limit": 200}).json()["items"]
        )

    before = count()
    monkeypatch.setattr(deeds, "_written", lambda text: None if text == "testclient" else 1 / 0)
    assert world.ask("POST", "/v1/tasks", "local write", files=FILES).status_code == 500
    task = world.ids["task_id"]
    answer = world.ask("PATCH", f"/v1/tasks/{task}", "local write", json={"name": "changed"})
    assert answer.status_code == 500
    monkeypatch.undo()
    assert count() == before
    assert world.ask("GET", f"/v1/tasks/{task}", "local read").json()["name"] != "changed"


def test_of_strangers_so_many_refusals_are_rows_and_the_rest_are_logged(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(world.service.client.app.state, "refusals", deeds.Refusals())
    monkeypatch.setattr(deeds, "STRANGERS_A_MINUTE", 3)
    monkeypatch.setattr(deeds.time, "monotonic", lambda: 1e6)
    before = len(world.events())
    caplog.set_level("INFO", "task2vec")
    for _ in range(5):
        assert world.ask("GET", "/v1/tasks/" + "%00" * 9, "unknown").status_code == 401
    rows = world.events()[before:]
    assert [(row.tenant, row.actor, row.object_id) for row in rows] == [(None, None, "")] * 3
    assert caplog.messages.count("request.refused") == 2
    assert world.ask("GET", "/v1/keys", "local read").status_code == 403
    assert len(world.events()) == before + 4


def test_the_audit_log_is_read_by_page_and_as_a_table(world: World) -> None:
    world.ask("GET", "/v1/keys", "local read")
    world.ask("POST", "/v1/keys", "local admin", json={"name": "x"})
    params = {"limit": 1}
    page = world.ask("GET", "/v1/audit", "local admin", params=params).json()
    (row,) = page["items"]
    assert (row["action"], row["status"], row["problem"]) == ("POST /v1/keys", 201, None)
    params["cursor"] = page["next_cursor"]
    (older,) = world.ask("GET", "/v1/audit", "local admin", params=params).json()["items"]
    assert (older["action"], older["status"]) == ("GET /v1/keys", 403)
    for asked in ({"refused": True}, {"actor": older["actor"]}):
        found = world.ask("GET", "/v1/audit", "local admin", params=asked).json()["items"]
        assert found[0] == older
    since = world.ask("GET", "/v1/audit", "local admin", params={"since": row["at"]}).json()
    assert since["items"] == [row]
    table = world.ask("GET", "/v1/audit", "local admin", params={"format": "csv", "limit": 1})
    assert table.text.splitlines()[0] == "at,actor,action,object_id,address,status,problem"
    assert table.headers["task2vec-next-cursor"]
