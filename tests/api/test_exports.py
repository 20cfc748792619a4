from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
import pytest

from app.api import exports
from app.embedding.vector import RANK
from tests.api.conftest import (
    LIBRARY_SPACE,
    OTHER_SPACE,
    SPACE,
    Service,
    assert_problem,
    embedding_of,
)

pytestmark = pytest.mark.engines("embedded", "servers")


def read(answer: Any) -> pl.DataFrame:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    return pl.read_parquet(io.BytesIO(answer.content))


def test_a_page_holds_tasks_with_all_numbers_of_their_embeddings(service: Service) -> None:
    task_id = service.ready(seed=1, name="animals", tags=["fur", "air"])
    (row,) = read(service.client.get("/v1/embeddings")).rows(named=True)
    told = service.client.get(f"/v1/tasks/{task_id}").json()
    for name in ("id", "name", "tags", "version", "label_kind", "library", "space_id"):
        assert row[name] == told[name]
    assert (row["images"], row["classes"]) == (40, 2)
    assert (row["complexity"], row["noise_floor"]) == (told["complexity"], told["noise_floor"])
    assert row["created_at"].isoformat() == told["created_at"].replace("Z", "+00:00")
    embedding = embedding_of(1)
    assert json.loads(row["provenance"]) == asdict(embedding.provenance)
    for name in exports.ARRAYS:
        assert np.array_equal(np.float32(row[name]), getattr(embedding, name)), name
    assert len(row["discriminants"]) == RANK


def test_pages_follow_each_other_by_a_cursor_in_the_header(service: Service) -> None:
    ids = [service.ready(seed=seed) for seed in range(3)]
    service.send()  # without an embedding there is no row
    first = service.client.get("/v1/embeddings?limit=2")
    asked = {"limit": 2, "cursor": first.headers["Task2Vec-Next-Cursor"]}
    last = service.client.get("/v1/embeddings", params=asked)
    assert "Task2Vec-Next-Cursor" not in last.headers
    assert [*read(first)["id"], *read(last)["id"]] == ids[::-1]


def test_spaces_of_several_sizes_stand_in_one_table_or_alone(service: Service) -> None:
    service.ready(seed=1, space_id=OTHER_SPACE)
    service.ready(seed=2, space_id=SPACE, tags=["fur"])
    table = read(service.client.get("/v1/embeddings"))
    assert table["vector"].list.len().to_list() == [64, 48]
    for asked in ({"space_id": SPACE}, {"tag": "fur"}):
        alone = read(service.client.get("/v1/embeddings", params=asked))
        assert alone["space_id"].to_list() == [SPACE]
        assert alone.schema == table.schema


def test_only_the_arrays_that_are_asked_for_are_there(service: Service) -> None:
    service.ready(seed=1)
    asked = {"arrays": ["vector", "draw_error"]}
    table = read(service.client.get("/v1/embeddings", params=asked))
    assert set(exports.ARRAYS) & set(table.columns) == {"vector", "draw_error"}
    assert_problem(service.client.get("/v1/embeddings?arrays=colour"), 422, "request-invalid")


def test_without_tasks_the_table_has_columns_and_no_rows(service: Service) -> None:
    empty = read(service.client.get("/v1/embeddings"))
    assert empty.height == 0
    service.ready(seed=1)
    assert read(service.client.get("/v1/embeddings")).schema == empty.schema


def test_the_librarys_are_told_where_they_are_asked_for(service: Service) -> None:
    service.ready(seed=1)
    table = read(service.client.get("/v1/embeddings?library=true"))
    assert set(table["space_id"]) == {LIBRARY_SPACE}
    assert table["library"].all()


def test_one_page_too_many_at_a_time_is_asked_to_come_again(service: Service) -> None:
    with exports._writing.one(), exports._writing.one():
        problem = assert_problem(service.client.get("/v1/embeddings"), 429, "exports-busy")
        assert "again" in problem["remedy"]
    assert read(service.client.get("/v1/embeddings")).height == 0
