from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from app.catalogue import CandidateCard, load_cards
from app.embedding.distance import one_to_one
from app.settings import shared_directory
from app.store.tables import ReferenceLibrary
from app.words import choices
from tests.api.conftest import LIBRARY_SPACE, SPACE, Service, assert_problem, embedding_of


@pytest.mark.parametrize("kind", ["candidates", "devices", "recipes", "probes"])
def test_shipped_cards_are_listed_by_name(service: Service, kind: str) -> None:
    names = [card["name"] for card in service.client.get(f"/v1/{kind}").json()["items"]]
    assert names
    assert names == sorted(names)


def test_a_probe_says_whether_its_weights_are_pinned(service: Service) -> None:
    probes = {probe["name"]: probe for probe in service.client.get("/v1/probes").json()["items"]}
    assert probes["tf_efficientnet_lite0"]["pinned"] is True
    assert probes["resnet18"]["pinned"] is False
    assert (probes["resnet18"]["digest"], probes["resnet18"]["weights"]["sha256"]) == (None, None)


@pytest.mark.parametrize("kind", ["candidates", "devices"])
def test_a_card_of_ones_own_is_added_once(service: Service, kind: str) -> None:
    card = service.client.get(f"/v1/{kind}").json()["items"][0] | {"name": "my-own"}
    answer = service.client.post(f"/v1/{kind}", json=card)
    assert (answer.status_code, answer.json()) == (201, card)
    assert card in service.client.get(f"/v1/{kind}").json()["items"]
    assert_problem(service.client.post(f"/v1/{kind}", json=card), 409, "card-exists")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"memory_bytes": True}, "memory_bytes"),
        ({"peak_flops": "fast"}, "peak_flops"),
        ({"price_usd_per_hour": -1}, "price_usd_per_hour"),
        ({"colour": "green"}, "colour"),
        ({"name": "../x"}, "name"),
    ],
)
def test_a_card_that_does_not_fit_names_the_field(
    service: Service, change: dict[str, object], field: str
) -> None:
    card = service.client.get("/v1/devices").json()["items"][0] | {"name": "my-own"} | change
    problem = assert_problem(service.client.post("/v1/devices", json=card), 422, "request-invalid")
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize(
    "change", [{"description": "\ud800"}, {"description": "\0"}, {"peak_flops": 10**400}]
)
def test_a_card_that_nothing_could_be_done_with_is_refused(
    service: Service, change: dict[str, object]
) -> None:
    card = service.client.get("/v1/devices").json()["items"][0] | {"name": "my-own"} | change
    answer = service.client.post(
        "/v1/devices", content=json.dumps(card), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["remedy"]


def test_every_candidate_has_an_estimate_that_says_what_it_rests_on(service: Service) -> None:
    names = {card["name"] for card in service.client.get("/v1/candidates").json()["items"]}
    answer = service.client.get(f"/v1/tasks/{service.ready()}/estimates").json()
    rows = answer["estimates"]
    assert {row["candidate"] for row in rows} == names
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert (row["device"], row["recipe"]) == (answer["device"], answer["recipe"])
        assert row["basis"]
        assert row["calibrated"] is False
        assert row["difficulty"] is None
        assert row["seconds"]["low"] <= row["seconds"]["typical"] <= row["seconds"]["high"]


def test_a_candidate_whose_source_task_is_embedded_has_a_difficulty(service: Service) -> None:
    source, task_id = service.ready(seed=1), service.ready(seed=2)
    card = service.client.get("/v1/candidates").json()["items"][0]
    card |= {"name": "my-own", "source_task": source}
    service.client.post("/v1/candidates", json=card)
    with service.resources.database.session() as session:
        session.add(ReferenceLibrary(probe="p", digest="0" * 64, space_id=SPACE, trivial=0.5))

    rows = service.client.get(f"/v1/tasks/{task_id}/estimates").json()["estimates"]

    expected = one_to_one(
        embedding_of(2).vector, embedding_of(1).vector, "asymmetric", epsilon=1e-12, trivial=0.5
    )
    difficulties = {row["candidate"]: row["difficulty"] for row in rows}
    assert difficulties.pop("my-own") == pytest.approx(expected)
    assert set(difficulties.values()) == {None}


def test_a_candidate_whose_source_task_is_not_here_has_no_difficulty(service: Service) -> None:
    task_id = service.ready(space_id=LIBRARY_SPACE)
    answer = service.client.get(f"/v1/tasks/{task_id}/estimates")
    assert answer.status_code == 200
    rows = {row["candidate"]: row for row in answer.json()["estimates"]}
    assert (rows["far"]["source_task"], rows["far"]["difficulty"]) == ("elsewhere", None)


def test_estimates_for_a_device_and_recipe_by_name_come_as_csv(service: Service) -> None:
    device = service.client.get("/v1/devices").json()["items"][0]["name"]
    answer = service.client.get(
        f"/v1/tasks/{service.ready()}/estimates",
        params={"device": device, "recipe": "head_only", "k": 2, "format": "csv"},
    )
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 2
    assert {(row["device"], row["recipe"]) for row in rows} == {(device, "head_only")}
    assert float(rows[0]["seconds_typical"]) > 0


def test_an_unknown_device_lists_the_devices_there_are(service: Service) -> None:
    answer = service.client.get(
        f"/v1/tasks/{service.ready()}/estimates", params={"device": "abacus"}
    )
    assert "cpu-2core" in assert_problem(answer, 422, "unknown-card")["remedy"]


def test_of_many_names_those_are_told_that_are_written_alike() -> None:
    cards = load_cards(shared_directory("models"), CandidateCard)
    assert choices(cards, "resnet50").startswith(
        "Did you mean resnet50.a1_in1k or resnet50.tv_in1k"
    )
    assert "resnet18.a1_in1k" in choices(cards, "resnet19")
    assert choices(cards, "abacus") == "No name is written like it."
    assert choices(["b", "a"], "c") == "Known are a, b."


def test_only_estimates_that_surely_stay_within_the_budget_are_listed(service: Service) -> None:
    address = f"/v1/tasks/{service.ready()}/estimates"
    rows = service.client.get(address).json()["estimates"]
    budget = sorted(row["money_usd"]["high"] for row in rows)[1]
    within = service.client.get(address, params={"budget_usd": budget}).json()["estimates"]
    assert {row["candidate"] for row in within} == {
        row["candidate"] for row in rows if row["money_usd"]["high"] <= budget
    }
    assert 0 < len(within) < len(rows)


@pytest.mark.parametrize(
    ("limit", "number"),
    [
        ("max_parameters", lambda row: row["parameters"]),
        ("max_inference_seconds", lambda row: row["inference_seconds"]["typical"]),
    ],
)
def test_what_is_too_large_or_slow_to_use_is_left_out(
    service: Service, limit: str, number: Callable[[dict[str, Any]], float]
) -> None:
    address = f"/v1/tasks/{service.ready()}/estimates"
    rows = service.client.get(address).json()["estimates"]
    most = sorted(map(number, rows))[1]
    within = service.client.get(address, params={limit: most}).json()["estimates"]
    assert {row["candidate"] for row in within} == {
        row["candidate"] for row in rows if number(row) <= most
    }
    assert [row["rank"] for row in within] == list(range(1, len(within) + 1))
    assert 0 < len(within) < len(rows)
