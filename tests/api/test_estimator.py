from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Service


def estimator(service: Service) -> dict[str, Any]:
    answer: dict[str, Any] = service.client.get("/v1/estimator").json()
    return answer


def import_runs(service: Service, n_tasks: int) -> list[str]:
    """Of three candidates that come in one order on every task."""
    names = [card["name"] for card in service.client.get("/v1/candidates").json()["items"]][:3]
    table = ["task,model,recipe,device,metric,value"] + [
        f"t{i},{name},full,cpu-2core,accuracy,{0.5 + 0.02 * (i % 7) + place:.3f}"
        for i in range(n_tasks)
        for name, place in zip(names, (0.0, 0.1, 0.2), strict=True)
    ]
    headers = {"Content-Type": "text/csv"}
    answer = service.client.post("/v1/outcomes:import", content="\n".join(table), headers=headers)
    assert answer.json()["refused"] == 0
    return names


def test_before_any_outcome_there_is_none(service: Service) -> None:
    found = estimator(service)
    assert (found["version"], found["outcomes"], found["pending"]) == (None, 0, False)


def test_it_tells_what_it_was_fitted_to_and_how_good_it_is(service: Service) -> None:
    import_runs(service, 12)
    assert estimator(service)["pending"] is True
    service.recalibrate()
    found = estimator(service)
    assert (found["version"], found["outcomes"], found["tasks"], found["candidates"]) == (
        *(1, 36, 12, 3),
    )
    assert (found["pending"], found["refused"], found["reason"]) == (False, None, "The first one.")
    assert found["accuracy"]["summary"]["weighted_tau"] == pytest.approx(1.0)
    assert set(found["accuracy"]["baselines"]) >= {"random", "outcome_prior", "largest_model"}


def test_runs_correct_the_time_that_is_told_and_intervals_are_tracked(service: Service) -> None:
    (first, *_) = names = import_runs(service, 12)
    path = "/v1/tasks/{}/estimates?device=cpu-2core&recipe=full"

    def row(task: str, name: str = first) -> dict[str, Any]:
        rows = service.client.get(path.format(task)).json()["estimates"]
        (found,) = [row for row in rows if row["candidate"] == name]
        return found

    def report(task: str, seconds: float) -> dict[str, Any]:
        run = {"task": task, "model": first, "recipe": "full", "device": "cpu-2core"}
        run |= {"metric": "accuracy", "value": 0.6, "seconds": seconds}
        answer: dict[str, Any] = service.client.post("/v1/outcomes", json=run).json()
        return answer

    tasks = [service.ready(seed, name=str(seed)) for seed in range(11)]
    counted = row(tasks[0])["seconds"]
    assert (counted["kind"], row(tasks[0])["calibrated"]) == ("uncalibrated_range", False)
    for task in tasks[:9]:
        report(task, 3 * counted["typical"])
    service.recalibrate()
    told = row(tasks[9])
    assert told["seconds"]["kind"] == "conformal_90"
    assert told["seconds"]["typical"] == pytest.approx(3 * counted["typical"], rel=0.1)
    assert told["money_usd"]["typical"] == pytest.approx(told["seconds"]["typical"] * 0.1 / 3600)
    assert any(line.startswith("seconds: what is counted times 3") for line in told["basis"])
    assert row(tasks[9], names[1])["seconds"]["kind"] == "uncalibrated_range"  # none of its runs

    for task, times in ((tasks[9], 3.0), (tasks[10], 4.5)):
        forecast = report(task, times * counted["typical"])["forecast"]
        assert forecast["seconds"] == told["seconds"]
        assert forecast["counted"]["seconds"] == counted["typical"]
        assert forecast["accuracy"]["kind"] == "conformal_90"
    tracked = estimator(service)["tracked"]
    assert (tracked["seconds"]["n_outcomes"], tracked["seconds"]["coverage"]) == (2, 0.5)
    assert tracked["accuracy"]["n_outcomes"] == 2


def test_outcomes_that_make_it_worse_do_not_serve(service: Service) -> None:
    names = import_runs(service, 14)
    service.recalibrate()
    orders = [(0.97, 0.03, 0.5), (0.5, 0.97, 0.03), (0.03, 0.5, 0.97)]  # none says anything
    table = ["task,model,recipe,metric,value"] + [
        f"odd{i},{name},full,accuracy,{value}"
        for i in range(9)
        for name, value in zip(names, orders[i % 3], strict=True)
    ]
    headers = {"Content-Type": "text/csv"}
    service.client.post("/v1/outcomes:import", content="\n".join(table), headers=headers)
    service.recalibrate()
    found = estimator(service)
    assert (found["version"], found["refused"]["version"]) == (1, 2)
    assert "Look at the outcomes" in found["refused"]["reason"]
