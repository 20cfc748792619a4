from __future__ import annotations

import csv
import io

import pytest

from app.jobs.atlas import refresh
from tests.api.conftest import LIBRARY_SPACE, SPACE, Service, assert_problem

pytestmark = pytest.mark.engines("embedded", "servers")


def draw(service: Service) -> None:
    refresh(service.resources.database, service.resources.indexes, threads=1, stop=lambda: False)


@pytest.fixture
def drawn(service: Service) -> list[str]:
    """Ids of seven tasks on the map, the oldest first."""
    ids = [service.ready(seed=seed, tags=["odd"] if seed % 2 else []) for seed in range(7)]
    draw(service)
    return ids


def test_the_map_has_every_task_once_over_its_pages(service: Service, drawn: list[str]) -> None:
    seen, cursor = [], None
    while True:
        asked = {"space_id": SPACE, "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = service.client.get("/v1/atlas", params=asked).json()
        assert (page["space_id"], page["tasks"]) == (SPACE, 7)
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [row["id"] for row in seen] == drawn[::-1]
    assert {"x", "y", "cluster", "complexity", "tags", "library"} <= seen[0].keys()
    assert len({(row["x"], row["y"]) for row in seen}) == 7


def test_a_tag_leaves_the_others_out(service: Service, drawn: list[str]) -> None:
    asked = {"space_id": SPACE, "tag": "odd"}
    rows = service.client.get("/v1/atlas", params=asked).json()["items"]
    assert {row["id"] for row in rows} == set(drawn[1::2])
    none = service.client.get("/v1/atlas", params={"space_id": SPACE, "cluster": 5}).json()
    assert none["items"] == []


def test_the_fullest_map_is_shown_where_no_space_is_named(
    service: Service, drawn: list[str]
) -> None:
    assert service.client.get("/v1/atlas").json()["space_id"] == SPACE
    library = service.client.get("/v1/atlas", params={"space_id": LIBRARY_SPACE}).json()
    assert [row["library"] for row in library["items"]] == [True, True]


def test_a_table_has_a_row_a_task_and_says_where_it_goes_on(
    service: Service, drawn: list[str]
) -> None:
    answer = service.client.get(
        "/v1/atlas", params={"space_id": SPACE, "limit": 5}, headers={"Accept": "text/csv"}
    )
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["id"] for row in rows] == drawn[:1:-1]
    assert {"x", "y", "cluster", "cluster_name", "tags"} <= rows[0].keys()
    cursor = answer.headers["Task2Vec-Next-Cursor"]
    more = service.client.get("/v1/atlas", params={"space_id": SPACE, "cursor": cursor}).json()
    assert [row["id"] for row in more["items"]] == drawn[1::-1]


def test_a_task_that_was_deleted_is_on_no_map(service: Service, drawn: list[str]) -> None:
    service.client.delete(f"/v1/tasks/{drawn[0]}")
    rows = service.client.get("/v1/atlas", params={"space_id": SPACE}).json()["items"]
    assert {row["id"] for row in rows} == set(drawn[1:])


def test_before_a_map_was_drawn_there_is_none(service: Service) -> None:
    assert_problem(service.client.get("/v1/atlas"), 404, "no-atlas")
    asked = {"space_id": "ffff", "limit": 10}
    assert_problem(service.client.get("/v1/atlas", params=asked), 404, "no-atlas")


@pytest.mark.parametrize(
    "asked", [{"limit": 0}, {"limit": 10_001}, {"cluster": -1}, {"cursor": "nonsense"}]
)
def test_a_question_that_makes_no_sense_is_refused(
    service: Service, drawn: list[str], asked: dict[str, int | str]
) -> None:
    answer = service.client.get("/v1/atlas", params=asked)
    assert answer.status_code == 422
    assert answer.json()["remedy"]
