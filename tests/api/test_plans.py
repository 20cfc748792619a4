from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Service, assert_problem
from tests.api.test_estimator import import_runs


@pytest.fixture
def task(service: Service) -> str:
    return service.ready()


def plan(service: Service, task: str, **asked: Any) -> dict[str, Any]:
    answer = service.client.get(f"/v1/tasks/{task}/plan", params=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("target", ["95", "1.5", "100"])
def test_a_target_in_percent_is_told_how_to_write_it(service: Service, target: str) -> None:
    answer = service.client.get(f"/v1/tasks/{service.ready()}/plan", params={"target": target})
    (error,) = assert_problem(answer, 422, "request-invalid")["errors"]
    share = f"{float(target) / 100:g}"
    assert error == {
        "field": "target",
        "message": f"a share from 0 to 1: write {float(target):g}% as {share}",
    }


def test_without_outcomes_it_says_that_nothing_is_known(service: Service, task: str) -> None:
    found = plan(service, task, target=0.9)
    assert (found["steps"], found["verdict"], found["unknown"]) == ([], "unknown", 4)
    assert "report runs" in found["says"]


def test_candidates_come_in_the_order_to_try_them(service: Service, task: str) -> None:
    names = import_runs(service, 12)
    service.recalibrate()
    found = plan(service, task, target=0.6, tries=4)
    order = [step["candidate"] for step in found["steps"]]
    assert order[0] == names[2]
    assert order.index(names[1]) < order.index(names[0])
    first, second, *_ = found["steps"]
    assert first["probability_best"] > second["probability_best"]
    assert first["accuracy"]["kind"] == "conformal_90"
    assert second["money_usd_by_now"] == pytest.approx(
        first["money_usd"]["typical"] + second["money_usd"]["typical"]
    )
    assert found["verdict"] == "likely"
    assert found["unknown"] == 0
    assert found["calibrated"] is False  # one was never tried: told by its published accuracy
    assert found["says"].startswith(f"Try {names[2]} first: ")
    assert plan(service, task, target=0.6, tries=4) == found


def test_an_outcome_of_the_task_changes_the_plan_at_once(service: Service, task: str) -> None:
    names = import_runs(service, 12)
    service.recalibrate()
    before = plan(service, task, target=0.6)
    run = {"task": task, "model": names[0], "recipe": "full", "metric": "accuracy", "value": 0.2}
    assert service.client.post("/v1/outcomes", json=run).status_code == 201
    after = plan(service, task, target=0.6)
    assert after["tried"] == {names[0]: 0.2}
    assert names[0] not in [step["candidate"] for step in after["steps"]]
    assert after["reachable"] < 0.05 < before["reachable"]
    assert after["says"].startswith("Nothing here will reach 60.0%")

    good = run | {"model": names[1], "value": 0.65}
    service.client.post("/v1/outcomes", json=good)
    assert plan(service, task, target=0.6)["says"] == (
        f"The target of 60.0% is reached: {names[1]}."
    )


def test_a_budget_that_nothing_stays_within_leaves_no_step(service: Service, task: str) -> None:
    import_runs(service, 12)
    service.recalibrate()
    found = plan(service, task, budget_usd=0)
    assert found["steps"] == []
    assert found["says"].startswith(
        "No candidate fits the device and surely stays within the budget. The cheapest, "
    )
    least = float(found["says"].partition("$")[2].partition(" and ")[0])
    assert plan(service, task, budget_usd=1.1 * least)["steps"]
    assert not plan(service, task, budget_usd=0.9 * least)["steps"]


def test_a_target_is_told_as_it_was_asked_for(service: Service, task: str) -> None:
    names = import_runs(service, 12)
    service.recalibrate()
    run = {"task": task, "model": names[0], "recipe": "full", "metric": "accuracy", "value": 0.98}
    assert service.client.post("/v1/outcomes", json=run).status_code == 201
    found = plan(service, task, target=0.9999)
    assert "99.99%" in found["says"]
    assert "99.99% (or 99.0%, as more is not told apart) is" in found["says"]
    assert found["reachable"] == plan(service, task, target=0.99)["reachable"] > 0.05
    assert "target of 7.0% is reached" in plan(service, task, target=0.07)["says"]


@pytest.mark.parametrize("asked", [{"target": 90}, {"target": 0}, {"tries": 0}, {"tries": 1000}])
def test_what_cannot_be_asked_is_refused(service: Service, task: str, asked: Any) -> None:
    answer = service.client.get(f"/v1/tasks/{task}/plan", params=asked)
    assert_problem(answer, 422, "request-invalid")


def test_where_little_is_left_to_gain_it_says_so(service: Service, task: str) -> None:
    names = import_runs(service, 12)
    service.recalibrate()
    run = {"task": task, "model": names[2], "recipe": "full", "metric": "accuracy", "value": 0.98}
    service.client.post("/v1/outcomes", json=run | {"n_held_out": 10_000})
    found = plan(service, task, tries=1)
    assert found["says"].startswith(
        f"More is hardly worth it: one more try would better {names[2]}"
    )
    (step,) = found["steps"]
    assert step["expected_regret_points"] < 0.5


def test_a_plan_is_of_what_one_would_take(service: Service, task: str) -> None:
    names = import_runs(service, 12)
    service.recalibrate()
    cards = {card["name"]: card for card in service.client.get("/v1/candidates").json()["items"]}
    smallest = min(names, key=lambda name: cards[name]["parameters"])
    within = plan(service, task, tries=4, max_parameters=cards[smallest]["parameters"])
    assert {step["candidate"] for step in within["steps"]} <= {
        name for name in cards if cards[name]["parameters"] <= cards[smallest]["parameters"]
    }
    assert smallest in [step["candidate"] for step in within["steps"]]
    licence = cards[names[0]]["licence"]
    taken = plan(service, task, tries=4, licence=licence.lower())
    assert {cards[step["candidate"]]["licence"] for step in taken["steps"]} == {licence}
    none = plan(service, task, max_parameters=1)
    assert (none["says"], none["steps"]) == ("No candidate is within these limits.", [])
    refused = service.client.get(f"/v1/tasks/{task}/plan", params={"licence": "Apache"})
    assert "Known are" in assert_problem(refused, 422, "unknown-licence")["remedy"]
