"""Dashboards and alerts ask for what a running service tells, in the words that it tells it in."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.store import tallies
from app.store.tables import Outcome
from tests.api.conftest import Service

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
BOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
OF_PROMETHEUS = {"instance", "job", "le"}
PROMETHEUS, INFINITY = "prometheus", "yesoreyeram-infinity-datasource"
SOURCES = {"tasks": INFINITY}
NOT_OURS = {"up", "process_resident_memory_bytes"}
NEEDS_PROMTOOL = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is in Debian's package prometheus"
)


def board(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for path in BOARDS:
        for panel in board(path)["panels"]:
            for target in panel["targets"]:
                if "expr" in target:
                    yield f"{path.stem}: {panel['title']}", target["expr"]
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    values = yaml.safe_load((DEPLOY / "helm" / "task2vec" / "values.yaml").read_text())
    yield "helm: scaling of workers", values["worker"]["autoscaling"]["query"]


EXPRESSIONS = list(expressions())


def parsed(expression: str) -> Any:
    """Grafana's variables are put in before a query is sent."""
    return promql.parse(expression.replace("$__rate_interval", "5m"))


def asked(expression: str) -> dict[str, set[str]]:
    """The metrics of an expression, each with the labels that it is chosen by."""
    found: dict[str, set[str]] = {}

    def note(node: Any) -> bool:
        if isinstance(node, promql.VectorSelector):
            names = {matcher.name for matcher in node.matchers.matchers}
            found.setdefault(node.name, set()).update(names)
        return True

    promql.walk(parsed(expression), note)
    return found


def grouped_by(expression: str) -> set[str]:
    by = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    return {name.strip() for names in by for name in names.split(",") if name.strip()}


@pytest.fixture
def told(service: Service) -> dict[str, set[str]]:
    """All that the service tells once a bit of everything happened: metrics and their labels."""
    task_id = service.ready(seed=1)
    service.client.get(f"/v1/tasks/{task_id}/neighbours")
    service.refuse(service.send(name="refused").json()["job_id"], {"type": "/problems/x"})
    service.start(service.send(name="running").json()["job_id"])
    service.send(name="queued")
    interval = {"accuracy": {"kind": "conformal_90", "low": 0.5, "typical": 0.6, "high": 0.7}}
    with service.resources.database.session() as session:
        tallies.add(session, "work", "embed_task", "cuda", 3.0)
        tallies.add(session, "retry", "embed_task", "blobs")
        session.add(
            Outcome(
                tenant="local",
                digest="d",
                task=task_id,
                model="m",
                recipe="",
                device="",
                metric="accuracy",
                value=0.6,
                stop_reason="",
                numbers={},
                forecast=interval,
            )
        )
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(service.client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_metric_and_label_that_is_asked_for_is_told(told: dict[str, set[str]]) -> None:
    unknown = []
    for where, expression in EXPRESSIONS:
        metrics = asked(expression)
        for name, labels in metrics.items():
            # An index on PostgreSQL is told of only while it is made, by the same family.
            if name not in NOT_OURS and name not in told:
                unknown.append(f"{where}: {name}")
            elif name not in NOT_OURS and labels - told[name] - OF_PROMETHEUS:
                unknown.append(f"{where}: {name}{labels - told[name]}")
        of_ours = set().union(*(told.get(name, set()) for name in metrics))
        if grouped_by(expression) - of_ours - OF_PROMETHEUS:
            unknown.append(f"{where}: by {grouped_by(expression) - of_ours}")
    assert unknown == []


def test_what_is_told_and_its_documentation_agree(told: dict[str, set[str]]) -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()
    section = reference.partition("\n## Monitoring\n")[2].partition("\n## ")[0]
    rows = {
        name: set(re.findall(r"[a-z]+", labels))
        for name, labels in re.findall(r"^\| `(task2vec_\w+)(?:\{([^}]*)\})?`", section, re.M)
    }
    served = {
        re.sub(r"_(bucket|count|sum)$", "", name): labels - {"le"}
        for name, labels in told.items()
        if name.startswith("task2vec_") and not name.endswith("_created")
    }
    assert rows == served


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_an_expression_is_one(where: str, expression: str) -> None:
    parsed(expression)  # raises


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_one_that_grafana_takes(path: Path) -> None:
    found = board(path)
    assert found["schemaVersion"] >= 36
    assert re.fullmatch(r"[a-z0-9-]{1,40}", found["uid"])
    variable = found["templating"]["list"][0]
    assert (variable["type"], variable["query"]) == (
        "datasource",
        SOURCES.get(path.stem, PROMETHEUS),
    )
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["datasource"]["uid"] == f"${{{variable['name']}}}"
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEF")[
            : len(panel["targets"])
        ]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells


def test_dashboards_are_each_of_their_own() -> None:
    assert len({board(path)["uid"] for path in BOARDS}) == len(BOARDS) == 3


def test_every_alert_says_what_and_what_to_do() -> None:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert set(rule["annotations"]) == {"summary", "remedy"}


def test_every_alert_is_tried() -> None:
    rules = [rule["alert"] for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]]
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts.test.yaml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    # Its rule is that of JobsWait but for its numbers, and a day of minutes takes long to try.
    assert fired == set(rules) - {"Task2VecLongJobsWait"}


@NEEDS_PROMTOOL
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts.test.yaml")],
    ids=["check", "test"],
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    ran = subprocess.run(
        ["promtool", *arguments], cwd=ALERTS.parent, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@NEEDS_PROMTOOL
def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    """The rules lie elsewhere in the container."""
    configuration = (ALERTS.parent / "prometheus.yaml").read_text()
    (tmp_path / "prometheus.yaml").write_text(
        configuration.replace("/etc/prometheus/alerts.yaml", str(ALERTS))
    )
    ran = subprocess.run(
        ["promtool", "check", "config", "prometheus.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
