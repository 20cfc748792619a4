"""Pages as a browser without scripts gets them; what scripts do is tested in tests/pages."""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from app.api import pages
from app.embedding.strips import Strip
from app.store import strips, workers
from app.store.tables import Embedding, SpaceLayers, Task
from tests.api.conftest import DIMENSIONS, SPACE, Service, assert_problem
from tests.api.runs import ask, names_of
from tests.api.test_estimator import import_runs


def read(service: Service, path: str, status: int = 200) -> str:
    answer = service.client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    return answer.text


@pytest.fixture
def pair(service: Service) -> tuple[str, str]:
    return service.ready(1, name="wheels <b>", tags=["cars & co"]), service.ready(2, name="leaves")


def paths(service: Service, pair: tuple[str, str]) -> list[str]:
    first, second = pair
    run = ask(service, first, names_of(service)[0]).json()["id"]
    return [
        "/",
        "/?library=true",
        "/?q=nothing-has-this-name",
        "/?tag=cars%20%26%20co",
        f"/tasks/{first}",
        f"/tasks/{first}/estimates",
        f"/tasks/{first}/estimates?sort=accuracy&licence=Apache-2.0&budget_usd=0.01&target_percent=90",
        f"/tasks/{first}/runs",
        f"/runs/{run}",
        f"/compare?task={first}&task={second}",
        "/atlas",
        "/estimator",
        "/jobs",
        "/jobs?state=failed",
        "/operation",
    ]


def test_every_page_comes_with_nothing_from_elsewhere_and_no_script_of_its_own(
    service: Service, pair: tuple[str, str]
) -> None:
    for path in paths(service, pair):
        text = read(service, path)
        for address in re.findall(r'(?:src|href|action|data-\w+)="([^"]*)"', text):
            assert not re.match(r"\w+:|//", address), (path, address)
        for script in re.findall(r"<script[^>]*>", text):
            assert "src=" in script or 'type="application/json"' in script, (path, script)
        assert " style=" not in text
        assert "wheels <b>" not in text


def test_what_a_page_asks_for_is_there(service: Service, pair: tuple[str, str]) -> None:
    asked = {
        address
        for path in paths(service, pair)
        for address in re.findall(r'(?:src|href)="(/static/[^"]*)"', read(service, path))
    }
    assert len(asked) > 5
    for address in asked:
        assert service.client.get(address).status_code == 200, address


def test_a_task_shows_its_neighbours_classes_and_what_was_left_out(service: Service) -> None:
    task_id = service.ready(1)
    service.ready(2, name="leaves")
    with service.resources.database.session() as session:
        row = session.query(Task).filter_by(id=task_id).one()
        row.intake_files = [
            {"path": "cat/9.png", "status": "skipped", "label": "cat", "reason": "not an image"}
        ]
        row.intake_summary = {**row.intake_summary, "skipped": 1}
        strips.keep(session, session.get_one(Embedding, row.embedding_seq), [Strip("cat", b"RIFF")])
    text = read(service, f"/tasks/{task_id}")
    assert "leaves" in text
    assert f'src="/v1/tasks/{task_id}/classes/0/strip"' in text
    assert "cat/9.png" in text
    assert "not an image" in text


def test_a_waiting_task_names_the_job_that_its_page_follows(service: Service) -> None:
    accepted = service.send().json()
    assert f'data-job="/v1/jobs/{accepted["job_id"]}"' in read(service, f"/tasks/{accepted['id']}")
    estimates = read(service, f"/tasks/{accepted['id']}/estimates")
    assert "it has no embedding" in estimates


def test_estimates_are_those_of_the_api_in_the_order_asked_for(
    service: Service, pair: tuple[str, str]
) -> None:
    rows = service.client.get(f"/v1/tasks/{pair[0]}/estimates").json()["estimates"]
    by_size = [row["candidate"] for row in sorted(rows, key=lambda row: row["parameters"])]
    text = read(service, f"/tasks/{pair[0]}/estimates?sort=parameters")
    assert re.findall(r'<th scope="row">([^<]+)<', text) == by_size
    licence = service.client.get("/v1/candidates").json()["items"][0]["licence"]
    assert licence in text


def test_budget_and_licence_hold_for_the_rows_the_plan_and_the_table(
    service: Service, pair: tuple[str, str]
) -> None:
    import_runs(service, 12)
    service.recalibrate()
    card = service.client.get("/v1/candidates").json()["items"][0]
    mine = {**card, "name": "mine", "licence": "MIT"}
    assert service.client.post("/v1/candidates", json=mine).status_code == 201
    here = f"/tasks/{pair[0]}/estimates"
    every = service.client.get(f"/v1{here}").json()["estimates"]
    some = card["licence"]
    text = read(service, f"{here}?licence={some}&budget_minutes=6000")
    rows = re.findall(r'<th scope="row">([^<]+)<', text)
    (csv,) = re.findall(r'href="(/v1/tasks/[^"]*format=csv[^"]*)"', text)
    assert rows == [each["candidate"] for each in every if each["candidate"] != "mine"]
    assert 0 < len(rows) < len(every)
    table = service.client.get(html.unescape(csv)).text.splitlines()
    assert [line.split(",")[1] for line in table[1:]] == rows
    assert re.findall(r"<li>([^:<]+): \d+% that", text)
    assert "mine" not in re.findall(r"<li>([^:<]+): \d+% that", text)
    (planned,) = re.findall(
        r"<li>([^:<]+): \d+% that", read(service, f"{here}?licence=MIT&tries=5")
    )
    assert planned == "mine"
    assert re.findall(r'<td class="number">(\d+)', text)[0] == "1"
    assert "Known are" in read(service, f"{here}?licence=unheard-of", 422)
    assert "The cheapest, " in read(service, f"{here}?budget_usd=0")


def test_a_noise_floor_is_drawn_however_far_it_is(service: Service, pair: tuple[str, str]) -> None:
    text = read(service, f"/tasks/{pair[0]}")
    near = service.client.get(f"/v1/tasks/{pair[0]}/neighbours?k=10").json()["neighbours"]
    far = max(max(each["distance"], each["noise_floor"] or 0) for each in near)
    drawn = [float(x) for x in re.findall(r'class="floor" x1="([\d.e-]+)"', text)]
    told = [each["noise_floor"] for each in near if each["noise_floor"] is not None]
    assert drawn == pytest.approx([100 * floor / far for floor in told])
    assert told


@pytest.mark.engines("embedded")
def test_the_operators_page_tells_what_indexes_lack_and_how_full_the_disk_is(
    service: Service, pair: tuple[str, str]
) -> None:
    row = rf"<code>{SPACE}</code></th><td>[^<]*</td>" + r'<td class="number">([\d–]+)</td>' * 3
    assert re.findall(row, read(service, "/operation")) == [("2", "0", "–")]
    service.client.get(f"/v1/tasks/{pair[0]}/neighbours?metric=cosine")
    assert re.findall(row, read(service, "/operation")) == [("2", "0", "0")]
    service.ready(3)
    assert re.findall(row, read(service, "/operation")) == [("3", "0", "1")]
    assert re.search(
        r"Free where the data lie</dt><dd[^>]*>[\d.]+ [MGT]iB", read(service, "/operation")
    )


def test_the_estimators_page_tells_by_what_factor_counts_were_off(
    service: Service, pair: tuple[str, str]
) -> None:
    for task, seconds in zip(pair, (1000.0, 2000.0), strict=True):
        run = {"task": task, "model": names_of(service)[0], "recipe": "full", "seconds": seconds}
        run |= {"device": "cpu-2core", "metric": "accuracy", "value": 0.8}
        assert service.client.post("/v1/outcomes", json=run).status_code == 201
    service.recalibrate()
    told = service.client.get("/v1/estimator").json()["corrections"]["seconds"]
    text = read(service, "/estimator")
    for key in ("counted_medale", "corrected_medale"):
        assert f"{math.exp(told[key]):.2f} x" in text
    assert "medale" not in text


def test_the_estimators_page_holds_outcomes_beside_their_forecasts(
    service: Service, pair: tuple[str, str]
) -> None:
    names = import_runs(service, 12)
    service.recalibrate()
    run = {"task": pair[0], "model": names[0], "recipe": "full", "device": "cpu-2core"}
    every = service.client.get(f"/v1/tasks/{pair[0]}/estimates").json()["estimates"]
    (told,) = (each["accuracy"] for each in every if each["candidate"] == names[0])
    value = round(told["low"] - 0.02, 3)
    outcome = service.client.post(
        "/v1/outcomes", json=run | {"metric": "accuracy", "value": value}
    ).json()
    assert outcome["quarantine"] is None
    text = read(service, "/estimator")
    (drawn,) = re.findall(r'<script type="application/json" id="beside">(.*?)</script>', text)
    (point,) = json.loads(drawn)
    assert (point["value"], point["typical"]) == (value, told["typical"])
    assert f'<td class="number">{value:.0%} ✗</td>' in text
    (held,) = re.findall(r'accuracy</th><td class="number">(\d+)%</td>', text)
    assert held == "0"


def test_jobs_are_listed_by_the_names_of_their_tasks(service: Service) -> None:
    accepted = service.send(name="mushrooms").json()
    text = read(service, "/jobs")
    assert f'<a href="/tasks/{accepted["id"]}">mushrooms</a>' in text
    assert "queued" in text


def test_two_tasks_are_compared_layer_by_layer_once_a_worker_told_the_layers(
    service: Service, pair: tuple[str, str]
) -> None:
    address = f"/compare?task={pair[0]}&task={pair[1]}"
    assert "No worker has told yet" in read(service, address)
    half = DIMENSIONS // 2
    layers = [
        {"name": "stem", "start": 0, "stop": half},
        {"name": "head", "start": half, "stop": DIMENSIONS},
    ]
    with service.resources.database.session() as session:
        session.add(SpaceLayers(space_id=SPACE, layers=layers))
    text = read(service, address)
    assert "<code>stem</code>" in text
    assert '"filters": 32' in text


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/tasks/unheard-of", 404, "There is no task"),
        ("/compare?task=only-one", 422, "1 task chosen, not two"),
        ("/jobs?state=odd", 422, "state"),
        ("/runs/no-id", 404, "Nothing can have the address"),
    ],
)
def test_errors_are_pages_that_say_what_to_do(
    service: Service, path: str, status: int, says: str
) -> None:
    assert says in read(service, path, status)


def test_an_address_that_is_nobodys_is_a_page_to_a_person_and_a_problem_to_a_program(
    service: Service,
) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    told = service.client.get("/taks", headers=browser)
    assert (told.status_code, told.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "Back to your tasks" in told.text
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json, text/html;q=0.5"}):
        assert_problem(service.client.get("/taks", headers=headers), 404, "unknown-route")
    refused = service.client.delete("/atlas", headers=browser)
    assert_problem(refused, 405, refused.json()["type"].removeprefix("/problems/"))


def test_what_fails_within_is_a_page_too_and_says_when_to_come_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(error: Exception) -> Any:
        monkeypatch.setattr(workers, "alive", Mock(side_effect=error))
        answer = service.client.get("/operation")
        assert answer.headers["content-type"].startswith("text/html")
        return answer

    busy = ask(NoFreeConnection("QueuePool limit reached"))
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    assert "Try again in a moment" in busy.text
    broken = ask(RuntimeError("the password is secret"))
    assert broken.status_code == 500
    assert "Something failed" in broken.text
    assert "password" not in broken.text


def test_pages_live_under_the_path_that_a_proxy_gives_them(
    serve: Callable[..., Service], pair: tuple[str, str]
) -> None:
    client: Any = serve().client
    client.app.root_path = "/t2v"
    text = client.get("/", headers={}).text
    addresses = re.findall(r'(?:src|href)="([^"#?][^"]*)"', text)
    assert addresses
    assert all(address.startswith("/t2v/") for address in addresses)


def test_files_of_others_are_as_their_makers_published_them() -> None:
    vendor = Path(pages.__file__).parent / "static" / "vendor"
    told = dict(
        re.findall(r"^\| `([\w.]+)` .* `([0-9a-f]{64})` ", (vendor / "README.md").read_text(), re.M)
    )
    assert told.keys() == {path.name for path in vendor.glob("*.js")}
    for name, digest in told.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest, name
