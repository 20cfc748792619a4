from __future__ import annotations

import csv
import gzip
import io
import zlib
from typing import Any

import polars as pl
import pytest
from sqlalchemy import update

from app.store.tables import Task
from tests.api.conftest import Service, assert_problem

HEAD = "task,model,recipe,device,metric,value,seconds"


@pytest.fixture
def report(service: Service) -> dict[str, Any]:
    return {
        "task": service.ready(),
        "model": candidate(service),
        "recipe": "full",
        "device": "cpu-2core",
        "metric": "accuracy",
        "value": 0.91,
        "seconds": 240.0,
        "stop_reason": "converged",
    }


def candidate(service: Service) -> str:
    name: str = service.client.get("/v1/candidates").json()["items"][0]["name"]
    return name


def send(service: Service, table: str | bytes, kind: str = "text/csv", **headers: str) -> Any:
    content = table.encode() if isinstance(table, str) else table
    headers |= {"Content-Type": kind}
    return service.client.post("/v1/outcomes:import", content=content, headers=headers)


def rows(service: Service, *values: str, seconds: str = "60") -> list[str]:
    name = candidate(service)
    return [f"t{i},{name},full,cpu-2core,accuracy,{v},{seconds}" for i, v in enumerate(values)]


def test_an_outcome_comes_back_with_the_forecast_of_its_moment(
    service: Service, report: dict[str, Any]
) -> None:
    answer = service.client.post("/v1/outcomes", json=report)
    assert answer.status_code == 201
    outcome = answer.json()
    assert (outcome["value"], outcome["numbers"]) == (0.91, {"seconds": 240.0})
    asked = {"device": "cpu-2core", "recipe": "full"}
    estimates = service.client.get(f"/v1/tasks/{report['task']}/estimates", params=asked).json()
    (row,) = [r for r in estimates["estimates"] if r["candidate"] == report["model"]]
    assert outcome["forecast"]["seconds"] == row["seconds"]
    assert service.client.get(f"/v1/outcomes/{outcome['id']}").json() == outcome


def test_the_same_report_again_is_the_same_outcome(
    service: Service, report: dict[str, Any]
) -> None:
    first = service.client.post("/v1/outcomes", json=report)
    again = service.client.post("/v1/outcomes", json=report)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other = service.client.post("/v1/outcomes", json=report | {"seconds": 241.0})
    assert other.json()["id"] != first.json()["id"]
    assert len(service.client.get("/v1/outcomes").json()["items"]) == 2


def test_a_failed_run_needs_no_value(service: Service, report: dict[str, Any]) -> None:
    del report["value"]
    problem = assert_problem(
        service.client.post("/v1/outcomes", json=report), 422, "outcome-invalid"
    )
    assert "`value`: is missing" in problem["detail"]
    failed = service.client.post("/v1/outcomes", json=report | {"stop_reason": "failed"})
    assert (failed.status_code, failed.json()["value"]) == (201, None)


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"model": "resnet-of-mine"}, "outcome-invalid", "'resnet-of-mine' is no candidate"),
        ({"device": "abacus"}, "outcome-invalid", "'abacus' is no device"),
        ({"recipe": "slowly"}, "outcome-invalid", "'slowly' is no recipe"),
        ({"metric": "happiness"}, "outcome-invalid", "'happiness' is no metric"),
        ({"value": 91.0}, "outcome-invalid", "a share from 0 to 1"),
        ({"seconds": -1.0}, "outcome-invalid", "a number above 0"),
        ({"colour": "green"}, "request-invalid", ""),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_kept(
    service: Service, report: dict[str, Any], change: dict[str, Any], code: str, says: str
) -> None:
    problem = assert_problem(service.client.post("/v1/outcomes", json=report | change), 422, code)
    assert says in problem["detail"]
    assert service.client.get("/v1/outcomes").json()["items"] == []


def test_an_outcome_of_an_unknown_task_is_not_found(
    service: Service, report: dict[str, Any]
) -> None:
    answer = service.client.post("/v1/outcomes", json=report | {"task": "nowhere"})
    assert_problem(answer, 404, "unknown-task")


def test_good_rows_of_a_table_are_added_and_bad_ones_told(service: Service) -> None:
    table = [HEAD, *rows(service, "0.8", "80", "0.7"), "t,nobody,full,cpu-2core,accuracy,0.5,60"]
    answer = send(service, "\n".join(table)).json()
    assert (answer["added"], answer["already_there"], answer["refused"]) == (2, 0, 2)
    assert [(e["row"], e["column"]) for e in answer["errors"]] == [(2, "value"), (4, "model")]
    assert send(service, "\n".join(table)).json()["already_there"] == 2
    assert [o["value"] for o in service.client.get("/v1/outcomes").json()["items"]] == [0.7, 0.8]


def test_a_row_that_calls_a_task_by_its_name_is_told_the_id(service: Service) -> None:
    own = service.ready(name="t0")
    (error,) = send(service, "\n".join([HEAD, *rows(service, "0.8", "0.7")])).json()["errors"]
    assert (error["row"], error["column"]) == (1, "task")
    assert (
        f"'t0' is what a task here is called, or how its id begins, not its id. Write {own}"
        in error["message"]
    )
    (kept,) = service.client.get("/v1/outcomes").json()["items"]
    assert kept["task"] == "t1"


def test_a_row_that_cuts_the_id_of_a_task_is_told_the_whole(service: Service) -> None:
    own = service.ready()
    line = f"{own[:8]},{candidate(service)},full,cpu-2core,accuracy,0.8,60"
    answer = send(service, "\n".join([HEAD, line])).json()
    assert (answer["added"], answer["refused"]) == (0, 1)
    assert f"Write {own}" in answer["errors"][0]["message"]


def test_outcomes_that_stand_under_a_name_already_stay_the_same(service: Service) -> None:
    table = "\n".join([HEAD, *rows(service, "0.8")])
    assert send(service, table).json()["added"] == 1
    service.ready(name="t0")
    assert send(service, table).json()["already_there"] == 1


def test_outcomes_that_stand_under_what_begins_an_id_stay_the_same(service: Service) -> None:
    line = f"abcdef12,{candidate(service)},full,cpu-2core,accuracy,0.8,60"
    table = "\n".join([HEAD, line])
    assert send(service, table).json()["added"] == 1
    own = service.ready()
    with service.resources.database.session() as session:
        session.execute(update(Task).where(Task.id == own).values(id="abcdef12" + "0" * 24))
    assert send(service, table).json()["already_there"] == 1


def test_all_mistakes_of_a_row_are_told_at_once(service: Service) -> None:
    line = f"t,{candidate(service)[:-1]},fully,cpu-3core,accuracy,80,60"
    table = "\n".join([HEAD, *rows(service, "0.8"), line])
    errors = send(service, table).json()["errors"]
    assert [(error["row"], error["column"]) for error in errors] == [
        (2, name) for name in ("device", "model", "recipe", "value")
    ]
    told = {error["column"]: error["message"] for error in errors}
    assert "cpu-2core" in told["device"]
    assert candidate(service) in told["model"]
    assert "Known are discriminative, full, full_long, head_only." in told["recipe"]


def test_a_task_may_not_call_itself_shipped(service: Service) -> None:
    table = f"task,model,metric,value\nshipped:x,{candidate(service)},accuracy,0.5"
    (error,) = send(service, table).json()["errors"]
    assert (error["row"], error["column"]) == (1, "task")


def test_what_is_counted_is_counted_for_the_steps_that_were_made(
    service: Service, report: dict[str, Any]
) -> None:
    def counted(**made: float) -> dict[str, float]:
        answer = service.client.post("/v1/outcomes", json=report | made).json()
        found: dict[str, float] = answer["forecast"]["counted"]
        return found

    whole, half = counted(epochs=20), counted(epochs=10)
    assert half["seconds"] == pytest.approx(whole["seconds"] / 2)
    assert half["memory_mib"] == whole["memory_mib"]
    assert counted(steps=1)["seconds"] < 0.1 * whole["seconds"]


def test_a_parquet_table_is_read_like_a_csv(service: Service) -> None:
    text = "\n".join([HEAD, *rows(service, "0.8", "0.7")])
    buffer = io.BytesIO()
    pl.read_csv(io.StringIO(text)).write_parquet(buffer)
    assert send(service, text).json()["added"] == 2
    parquet = send(service, buffer.getvalue(), "application/vnd.apache.parquet").json()
    assert (parquet["added"], parquet["already_there"]) == (0, 2)


def test_what_is_no_table_is_refused(service: Service) -> None:
    assert_problem(send(service, "colour\nblue"), 422, "outcomes-columns-missing")
    assert_problem(
        send(service, b"\x00\xff", "application/vnd.apache.parquet"), 422, "outcomes-unreadable"
    )
    assert_problem(send(service, "{}", "application/json"), 415, "content-type")


def test_a_compressed_table_is_not_unpacked(service: Service) -> None:
    table = "\n".join([HEAD, *rows(service, "0.8")]).encode()
    for packed in (gzip.compress(table), zlib.compress(table)):
        problem = assert_problem(send(service, packed), 422, "outcomes-unreadable")
        assert problem["remedy"] == (
            "Send CSV in UTF-8, not compressed; `task2vec outcomes import` unpacks .csv.gz itself."
        )


def test_an_import_with_a_key_is_answered_the_same_and_other_content_refused(
    service: Service,
) -> None:
    text = "\n".join([HEAD, *rows(service, "0.8")])
    first, again = (send(service, text, **{"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json() == again.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    other = send(service, text + "\n", **{"Idempotency-Key": "k"})
    assert other.status_code == 422


def test_an_implausible_outcome_waits_until_it_is_released(service: Service) -> None:
    usual = rows(service, *(f"0.{i}" for i in range(50, 70)))
    absurd = rows(service, "0.8", seconds="9000000")
    answer = send(service, "\n".join([HEAD, *usual, *absurd])).json()
    assert (answer["added"], answer["quarantined"]) == (21, 1)
    (held,) = service.client.get("/v1/outcomes?quarantined=true").json()["items"]
    assert "9e+06 seconds are far from" in held["quarantine"]
    assert len(service.client.get("/v1/outcomes?quarantined=false").json()["items"]) == 20
    path = f"/v1/outcomes/{held['id']}"
    assert service.client.patch(path, json={"quarantined": False}).json()["quarantine"] is None
    assert service.client.get("/v1/outcomes?quarantined=true").json()["items"] == []
    assert service.client.patch(path, json={"quarantined": True}).status_code == 422


def test_outcomes_are_listed_page_by_page_and_as_csv(service: Service) -> None:
    send(service, "\n".join([HEAD, *rows(service, "0.5", "0.6", "0.7")]))
    page = service.client.get("/v1/outcomes?limit=2").json()
    rest = service.client.get("/v1/outcomes", params={"cursor": page["next_cursor"]}).json()
    assert [o["value"] for o in (*page["items"], *rest["items"])] == [0.7, 0.6, 0.5]
    text = service.client.get("/v1/outcomes?task=t1", headers={"Accept": "text/csv"}).text
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["task"], row["value"], row["seconds"]) == ("t1", "0.6", "60.0")
    first = service.client.get("/v1/outcomes?limit=2&format=csv")
    assert first.headers["Task2Vec-Next-Cursor"] == page["next_cursor"]


def test_a_table_of_outcomes_tells_the_forecast_of_each_in_columns(
    service: Service, report: dict[str, Any]
) -> None:
    outcome = service.client.post("/v1/outcomes", json=report).json()
    send(service, "\n".join([HEAD, *rows(service, "0.5")]))  # on a task that is not here
    text = service.client.get("/v1/outcomes?format=csv").text
    without, told = csv.DictReader(io.StringIO(text))
    seconds = outcome["forecast"]["seconds"]
    assert [float(told[f"forecast_seconds_{end}"]) for end in ("low", "typical", "high")] == [
        seconds[end] for end in ("low", "typical", "high")
    ]
    assert without["forecast_seconds_typical"] == ""


def test_outcomes_on_other_tasks_tell_the_accuracy_of_a_new_one(service: Service) -> None:
    task, head = service.ready(), "task,model,recipe,metric,value"
    names = [card["name"] for card in service.client.get("/v1/candidates").json()["items"]][:2]

    def estimates() -> dict[str, Any]:
        rows = service.client.get(f"/v1/tasks/{task}/estimates").json()["estimates"]
        return {row["candidate"]: row for row in rows}

    assert all(row["accuracy"] is None for row in estimates().values())
    table = [head] + [
        f"t{i},{name},full,accuracy,{0.6 + 0.02 * (i % 7) + 0.1 * place}"
        for i in range(12)
        for place, name in enumerate(names)
    ]
    assert send(service, "\n".join(table)).json()["added"] == 24
    assert all(row["accuracy"] is None for row in estimates().values())
    service.recalibrate()
    told = estimates()
    weak, strong = (told[name]["accuracy"] for name in names)
    assert 0 < weak["low"] < weak["typical"] < strong["typical"] < strong["high"] < 1
    assert strong["kind"] == "conformal_90"
    assert told[names[1]]["rank"] < told[names[0]]["rank"]
    others = [row for name, row in told.items() if name not in names]
    assert {row["accuracy"]["kind"] for row in others} == {"uncalibrated_range"}
    assert "published accuracy" in others[0]["basis"][0]

    ours = {"task": task, "model": names[0], "recipe": "full", "metric": "accuracy", "value": 0.3}
    assert service.client.post("/v1/outcomes", json=ours).status_code == 201
    after = estimates()
    # A hard task, it turns out: known at once, without another fit.
    assert after[names[1]]["accuracy"]["high"] < strong["typical"]
    assert after[names[1]]["basis"][0].startswith("accuracy: from outcomes")


def test_what_is_in_quarantine_teaches_nothing(service: Service) -> None:
    name = candidate(service)
    head, task = "task,model,recipe,metric,value,seconds", service.ready()
    table = [head] + [f"t{i},{name},full,accuracy,{0.5 + 0.03 * i},60" for i in range(12)]
    send(service, "\n".join([*table, f"t,{name},full,accuracy,0.99,9000000"]))

    def accuracy() -> float:
        service.recalibrate()
        rows = service.client.get(f"/v1/tasks/{task}/estimates").json()["estimates"]
        (row,) = [row for row in rows if row["candidate"] == name]
        typical: float = row["accuracy"]["typical"]
        return typical

    before = accuracy()
    assert before == pytest.approx(0.675, abs=0.01)
    (held,) = service.client.get("/v1/outcomes?quarantined=true").json()["items"]
    service.client.patch(f"/v1/outcomes/{held['id']}", json={"quarantined": False})
    assert accuracy() > before + 0.02
