"""The dashboard of tasks, against a service that asks for keys: each query is sent over HTTP as the
Infinity data source sends it, and each answer read as its backend parser reads it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvicorn
import yaml

from app.store import keys
from tests.api.conftest import Service
from tests.deploy.test_compose import TEAM, read
from tests.deploy.test_monitoring import INFINITY, board

GRAFANA = Path(__file__).resolve().parent.parent.parent / "deploy" / "grafana"
BOARD = board(GRAFANA / "dashboards" / "tasks.json")
PANELS = {panel["title"]: panel for panel in BOARD["panels"]}
VARIABLES = {each["name"]: each for each in BOARD["templating"]["list"]}
CHOSEN_FROM = {n: v["query"]["infinityQuery"] for n, v in VARIABLES.items() if v["type"] == "query"}
ACCEPT = "application/json;q=0.9,text/plain"
TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "timestamp": lambda value: datetime.fromisoformat(value).tzinfo is not None,
}
# Empty until somebody says why an outcome is doubted.
MAY_BE_EMPTY = {"quarantine"}


@pytest.fixture
def grafana(serve: Callable[..., Service]) -> Iterator[Callable[[str], Any]]:
    """What a data source with a key that reads is answered; the service has a bit of everything."""
    service = serve(auth="required")
    with service.resources.database.session() as session:
        writer = keys.create_key(session, "local", "writer")
        reader = keys.create_key(session, "local", "grafana", scope="read")
    service.client.headers["Authorization"] = f"Bearer {writer}"
    for seed in (1, 2, 3):
        service.ready(seed=seed, name=f"animals & plants {seed}")
    service.send(name="queued")
    task = service.client.get("/v1/tasks?status=ready").json()["items"][0]["id"]
    models = [card["name"] for card in service.client.get("/v1/candidates").json()["items"]][:2]
    table = [f"t{i},{m},full,accuracy,{0.6 + 0.02 * (i % 7)}" for i in range(12) for m in models]
    sent = "\n".join(["task,model,recipe,metric,value", *table])
    csv = {"Content-Type": "text/csv"}
    service.client.post("/v1/outcomes:import", content=sent, headers=csv).raise_for_status()
    assert service.recalibrate() == 1
    run = {"task": task, "recipe": "full", "device": "cpu-2core", "metric": "accuracy"}
    for value, model in ((0.7, models[0]), (0.8, models[1])):
        asked = {**run, "model": model, "value": value, "seconds": 60.0, "stop_reason": "cap"}
        service.client.post("/v1/outcomes", json=asked).raise_for_status()

    server = uvicorn.Server(
        uvicorn.Config(service.client.app, host="127.0.0.1", port=0, lifespan="off", log_level=40)  # type: ignore[arg-type]
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}",
        headers={"Authorization": f"Bearer {reader}", "Accept": ACCEPT},
    ) as client:
        values = {"task": task, "device": "cpu-2core", "recipe": "full", "name": "als & pl"}

        def ask(url: str) -> Any:
            answer = client.get(put_in(url, values))
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == "application/json"
            return answer.json()

        yield ask
    server.should_exit = True
    thread.join()


def put_in(url: str, values: dict[str, str]) -> str:
    """Grafana's variables, quoted where the query says so."""

    def value(found: re.Match[str]) -> str:
        name, form = found.groups()
        return quote(values[name], safe="") if form else values[name]

    return re.sub(r"\$\{(\w+)(:percentencode)?\}", value, url)


def chosen(answer: Any, path: str) -> Any:
    """A gjson path of plain names; null where something on it is none."""
    for name in path.split(".") if path else ():
        answer = None if answer is None else answer[name]
    return answer


def rows_of(query: dict[str, Any], answer: Any) -> list[dict[str, Any]]:
    found = chosen(answer, query["root_selector"])
    rows = [
        {each["text"]: chosen(row, each["selector"]) for each in query["columns"]}
        for row in (found if isinstance(found, list) else [found])
    ]
    if expression := query.get("filterExpression"):
        (wanted,) = re.findall(r"^(\w+) == '(\w+)'$", expression)
        rows = [row for row in rows if row[wanted[0]] == wanted[1]]
    return rows


def named_in(panel: dict[str, Any]) -> set[str]:
    """Fields that a panel draws, dresses, sorts or links by."""
    names = {each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]}
    names |= {panel["options"]["xField"]} if "xField" in panel["options"] else set()
    for each in panel.get("transformations", ()):
        options = each["options"]
        names |= {field["field"] for field in options.get("sort", ())}
        names |= {*options.get("indexByName", ()), *options.get("excludeByName", ())}
    return names | set(re.findall(r"__data\.fields\.(\w+)", json.dumps(panel)))


def require_typed(query: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    assert rows
    for column in query["columns"]:
        values = [row[column["text"]] for row in rows if row[column["text"]] is not None]
        assert values or column["text"] in MAY_BE_EMPTY, f"{column['text']} is empty"
        assert all(TYPES[column["type"]](value) for value in values), column


def test_every_panel_gets_the_columns_that_it_names_of_the_type_that_it_says(
    grafana: Callable[[str], Any],
) -> None:
    for panel in PANELS.values():
        columns = set()
        for query in panel["targets"]:
            rows = rows_of(query, grafana(query["url"]))
            require_typed(query, rows)
            columns |= set(rows[0])
        assert named_in(panel) <= columns, panel["title"]


def test_variables_are_chosen_from_what_there_is(grafana: Callable[[str], Any]) -> None:
    found = {}
    for name, query in CHOSEN_FROM.items():
        rows = rows_of(query, grafana(query["url"]))
        require_typed(query, rows)
        found[name] = {row["__value"]: row["__text"] for row in rows}
    assert set(found["task"].values()) == {f"animals & plants {seed}" for seed in (1, 2, 3)}
    for name in ("device", "recipe"):
        assert VARIABLES[name]["current"]["value"] in found[name]


def test_neighbours_lie_beside_their_noise_floor(grafana: Callable[[str], Any]) -> None:
    (query,) = PANELS["Nearest tasks"]["targets"]
    rows = rows_of(query, grafana(query["url"]))
    assert rows == sorted(rows, key=lambda row: row["distance"])
    assert all(row["noise_floor"] > 0 for row in rows)


def test_statuses_are_counted_of_all_tasks(grafana: Callable[[str], Any]) -> None:
    (query,) = PANELS["Tasks by status"]["targets"]
    (row,) = rows_of(query, grafana(query["url"]))
    assert {name: count for name, count in row.items() if count} == {
        "ready": 3,
        "queued": 1,
    }


@pytest.mark.parametrize(
    "query",
    [*CHOSEN_FROM.values(), *(q for panel in PANELS.values() for q in panel["targets"])],
    ids=lambda query: query["url"],
)
def test_a_query_is_one_that_infinity_takes(query: dict[str, Any]) -> None:
    """As of its version 3: where nothing names a parser, another one than `backend` reads."""
    assert (query["type"], query["parser"], query["source"]) == ("json", "backend", "url")
    assert query["url_options"]["method"] == "GET"
    assert query["url"].startswith("/v1/")
    assert {column["type"] for column in query["columns"]} <= set(TYPES)
    assert set(re.findall(r"\$\{(\w+)", query["url"])) <= set(VARIABLES)
    if "limit=" in query["url"]:  # a list that may be longer than one page
        assert query["pagination_mode"] == "cursor"
        assert query["pagination_param_cursor_extraction_path"] == "next_cursor"


def test_a_team_gets_the_plugin_and_a_source_whose_key_stands_in_the_environment() -> None:
    services = read(TEAM)
    environment = services["grafana"]["environment"]
    assert re.fullmatch(rf"{INFINITY}@\d+\.\d+\.\d+", environment["GF_PLUGINS_PREINSTALL"])
    provisioned = (GRAFANA / "provisioning" / "datasources" / "task2vec.yaml").read_text()
    (source,) = yaml.safe_load(provisioned)["datasources"]
    assert source["type"] == INFINITY
    assert source["jsonData"] == {"auth_method": "bearerToken", "allowedHosts": [source["url"]]}
    assert source["secureJsonData"]["bearerToken"].removeprefix("$") in environment
    host, port = httpx.URL(source["url"]).host, httpx.URL(source["url"]).port
    assert (host in services, port) == (True, 8000)
