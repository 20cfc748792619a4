from __future__ import annotations

import asyncio
import csv
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.api import bodies, distances, uploads
from app.embedding.distance import METRICS, one_to_one, pairwise
from app.embedding.parts import row_of
from app.store import reference
from tests.api.conftest import (
    ARCHIVE,
    LIBRARY_SPACE,
    OTHER_SPACE,
    SPACE,
    Service,
    assert_problem,
    embedding_of,
)

pytestmark = pytest.mark.engines("embedded", "servers")


def test_neighbours_are_ranked_by_exact_distance_and_leave_the_task_out(service: Service) -> None:
    asked = service.ready(seed=0)
    others = {service.ready(seed=seed, name=f"task {seed}"): seed for seed in (1, 2, 3)}
    answer = service.client.get(f"/v1/tasks/{asked}/neighbours", params={"metric": "jsd"}).json()
    assert (answer["task"], answer["metric"], answer["space_id"]) == (asked, "jsd", SPACE)
    assert answer["exact"] is True
    rows = answer["neighbours"]
    assert {row["id"] for row in rows} == set(others)
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert [row["distance"] for row in rows] == sorted(row["distance"] for row in rows)
    for row in rows:
        expected = one_to_one(
            embedding_of(0).vector, embedding_of(others[row["id"]]).vector, "jsd", epsilon=1e-12
        )
        assert row["distance"] == pytest.approx(expected)
        assert (row["images"], row["classes"], row["library"]) == (40, 2, False)


def test_only_k_neighbours_with_the_tag_are_listed(service: Service) -> None:
    asked = service.ready(seed=0)
    tagged = [service.ready(seed=seed, tags=["zoo"]) for seed in (1, 2)]
    service.ready(seed=3)
    address = f"/v1/tasks/{asked}/neighbours"
    rows = service.client.get(address, params={"tag": "zoo"}).json()["neighbours"]
    assert {row["id"] for row in rows} == set(tagged)
    assert len(service.client.get(address, params={"k": 1}).json()["neighbours"]) == 1


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"label_kind": "single_label"}, 2),
        ({"label_kind": "multi_label"}, 0),
        ({"min_classes": 2, "max_classes": 2}, 2),
        ({"min_classes": 3}, 0),
    ],
)
def test_filters_leave_others_out_of_both_questions(
    service: Service, filters: dict[str, Any], found: int
) -> None:
    """The tasks here have two classes and one label an image."""
    asked = service.ready(seed=0)
    for seed in (1, 2):
        service.ready(seed=seed)
    rows = service.client.get(f"/v1/tasks/{asked}/neighbours", params=filters).json()
    assert len(rows["neighbours"]) == found
    sent = {"vector": embedding_of(0).vector.tolist(), "space_id": SPACE, "among": filters}
    answer = service.client.post("/v1/neighbours", json=sent).json()
    assert len(answer["neighbours"]) == (3 if found else 0)  # itself among them
    assert answer["unindexed"] == 0


def test_tasks_of_another_space_are_nobodys_neighbours(service: Service) -> None:
    asked = service.ready(seed=0)
    service.ready(seed=1, space_id=OTHER_SPACE)
    assert service.client.get(f"/v1/tasks/{asked}/neighbours").json()["neighbours"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [({"k": 0}, "k"), ({"k": 1001}, "k"), ({"k": "many"}, "k"), ({"metric": "euclid"}, "metric")],
)
def test_query_parameters_that_do_not_fit_are_named(
    service: Service, query: dict[str, str], field: str
) -> None:
    answer = service.client.get(f"/v1/tasks/{service.ready()}/neighbours", params=query)
    assert assert_problem(answer, 422, "request-invalid")["errors"][0]["field"] == field


def test_csv_cells_that_a_spreadsheet_would_run_are_made_harmless(service: Service) -> None:
    asked = service.ready(seed=0)
    service.ready(seed=1, name='=HYPERLINK("http://x")', tags=["-1+1", "a, b"])
    address = f"/v1/tasks/{asked}/neighbours"
    answer = service.client.get(address, headers={"accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text == service.client.get(address, params={"format": "csv"}).text
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["name"] == '\'=HYPERLINK("http://x")'
    assert row["tags"] == "'-1+1|a, b"
    assert float(row["distance"]) > 0
    assert row["metric"] == "cosine"


def test_a_distance_has_the_noise_floor_of_its_metric_or_none(service: Service) -> None:
    asked = service.ready(seed=0)
    service.ready(seed=1)
    address = f"/v1/tasks/{asked}/neighbours"
    for metric, floor, cell in (("cosine", 0.01, "0.01"), ("jsd", None, "")):
        query = {"metric": metric}
        (row,) = service.client.get(address, params=query).json()["neighbours"]
        assert (row["noise_floor"], row["distinguishable"]) == (floor, None)
        text = service.client.get(address, params={**query, "format": "csv"}).text
        (cells,) = csv.DictReader(io.StringIO(text))
        assert cells["noise_floor"] == cell


def test_the_accept_header_is_weighed_and_json_is_the_default(service: Service) -> None:
    address = f"/v1/tasks/{service.ready()}/neighbours"
    for accept, kind in (
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("text/csv;q=0.1, application/json", "application/json"),
        ("text/html, */*", "application/json"),
        ("text/csv;q=x", "application/json"),
        ("text/csv;q=0", "application/json"),
    ):
        answer = service.client.get(address, headers={"accept": accept})
        assert answer.headers["content-type"].partition(";")[0] == kind, accept


def test_a_vector_finds_the_task_it_came_from(service: Service) -> None:
    task_id = service.ready(seed=1)
    service.ready(seed=2)
    told = service.client.get(f"/v1/tasks/{task_id}/embedding").json()
    body = {key: told[key] for key in ("vector", "domain", "discriminants", "space_id")}
    for metric in ("cosine", "jsd"):
        answer = service.client.post("/v1/neighbours", json={**body, "metric": metric}).json()
        assert answer["task"] is None
        assert answer["neighbours"][0]["id"] == task_id
        assert answer["neighbours"][0]["distance"] == pytest.approx(0, abs=1e-6)


def test_a_vector_is_ranked_by_the_default_of_its_space(service: Service) -> None:
    there, here = service.ready(seed=9, space_id=LIBRARY_SPACE), service.ready(seed=9)
    for task_id, metric in ((there, "combined"), (here, "cosine")):
        told = service.client.get(f"/v1/tasks/{task_id}/embedding").json()
        body = {key: told[key] for key in ("vector", "domain", "discriminants", "space_id")}
        answer = service.client.post("/v1/neighbours", json=body).json()
        assert answer["metric"] == metric
        assert answer["neighbours"][0]["id"] == task_id
        assert answer["neighbours"][0]["distance"] == pytest.approx(0, abs=1e-6)


def test_every_answer_names_the_default_metric_of_the_space(service: Service) -> None:
    there = [service.ready(seed=seed, space_id=LIBRARY_SPACE) for seed in (7, 8)]
    here = [service.ready(seed=seed) for seed in (7, 8)]
    for ids, metric in ((there, "combined"), (here, "cosine")):
        address = f"/v1/tasks/{ids[0]}/neighbours"
        assert service.client.get(address).json()["metric"] == metric
        text = service.client.get(address, params={"format": "csv"}).text
        assert {row["metric"] for row in csv.DictReader(io.StringIO(text))} == {metric}
        answer = service.client.post("/v1/distances", json={"tasks": ids}).json()
        assert (answer["metric"], answer["symmetric"]) == (metric, True)
        asked = {"tasks": ids, "metric": metric}
        named = service.client.post("/v1/distances?format=csv", json=asked)
        assert named.headers["task2vec-metric"] == metric
        rows = list(csv.reader(io.StringIO(named.text)))
        assert float(rows[1][2]) == pytest.approx(answer["distances"][0][1])


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric_can_be_asked_for_where_there_is_a_library(
    service: Service, metric: str
) -> None:
    """Distances of the matrix are those among neighbours, and what the mathematics says."""
    ids = [service.ready(seed=seed, space_id=LIBRARY_SPACE) for seed in (7, 8)]
    address = f"/v1/tasks/{ids[1]}/neighbours"
    rows = service.client.get(address, params={"metric": metric}).json()["neighbours"]
    (found,) = (row["distance"] for row in rows if row["id"] == ids[0])
    body = {"tasks": ids, "metric": metric}
    matrix = service.client.post("/v1/distances", json=body).json()["distances"]
    with service.resources.database.session(read_only=True) as session:
        population = reference.population(session, LIBRARY_SPACE)
        trivial = reference.trivial(session, LIBRARY_SPACE)
    target, source = (embedding_of(seed, LIBRARY_SPACE) for seed in (8, 7))
    whole = METRICS[metric].compares == "parts"
    expected = one_to_one(
        *(row_of(each) if whole else each.vector for each in (target, source)),
        metric,
        epsilon=1e-12,
        trivial=trivial,
        population=population,
    )
    assert found == pytest.approx(expected, abs=1e-6)
    assert matrix[0][1] == pytest.approx(expected, abs=1e-6)


def test_metrics_on_parts_need_a_library(service: Service) -> None:
    ids = [service.ready(seed=seed) for seed in (1, 2)]
    for metric in ("combined", "label", "discriminant", "domain"):
        body = {"tasks": ids, "metric": metric}
        answer = service.client.post("/v1/distances", json=body)
        assert_problem(answer, 422, "population-unknown")
        answer = service.client.get(f"/v1/tasks/{ids[0]}/neighbours", params={"metric": metric})
        assert_problem(answer, 422, "population-unknown")


def test_vectors_that_are_no_embedding_are_refused(service: Service) -> None:
    service.ready()
    vector = embedding_of(1).vector.tolist()
    for entries in ([*vector[:-1], -1.0], [*vector[:-1], True], [*vector[:-1], "1"], []):
        body = {"vector": entries, "space_id": SPACE}
        assert_problem(service.client.post("/v1/neighbours", json=body), 422, "request-invalid")
    for number in ("NaN", "Infinity", "1e400"):
        answer = service.client.post(
            "/v1/neighbours",
            content=f'{{"vector": [{number}], "space_id": "{SPACE}"}}',
            headers={"content-type": "application/json"},
        )
        assert_problem(answer, 422, "request-invalid")
    short = {"vector": vector[:3], "space_id": SPACE}
    assert_problem(service.client.post("/v1/neighbours", json=short), 422, "length-mismatch")
    elsewhere = {"vector": vector, "space_id": "e" * 16}
    assert_problem(service.client.post("/v1/neighbours", json=elsewhere), 409, "unknown-space")


def test_a_metric_on_parts_asks_for_all_of_them(service: Service) -> None:
    embedding = embedding_of(1, LIBRARY_SPACE)
    body = {"vector": embedding.vector.tolist(), "space_id": LIBRARY_SPACE}
    domain, axes = embedding.domain.tolist(), embedding.discriminants.tolist()
    for sent in (
        {},
        {"metric": "domain"},
        {"domain": domain},
        {"discriminants": axes},
        {"domain": domain, "discriminants": [row[:-1] for row in axes]},
    ):
        answer = service.client.post("/v1/neighbours", json=body | sent)
        assert_problem(answer, 422, "length-mismatch")
    for strange in (axes[:-1], [*axes[:-1], axes[0][:-1]], [[True], [1], [1], [1]], "axes"):
        sent = {"domain": domain, "discriminants": strange}
        answer = service.client.post("/v1/neighbours", json=body | sent)
        assert_problem(answer, 422, "request-invalid")
    answer = service.client.post("/v1/neighbours", json=body | {"metric": "cosine"}).json()
    assert answer["metric"] == "cosine"


def test_images_that_are_only_asked_about_get_their_neighbours_from_the_job_and_never_show(
    service: Service,
) -> None:
    kept = service.ready(seed=1, tags=["zoo"])
    service.ready(seed=2)
    accepted = service.send(ARCHIVE, "/v1/neighbours", metric="jsd", tag="zoo", k=5)
    assert accepted.status_code == 202
    address = accepted.headers["location"]
    job_id = accepted.json()["job_id"]
    assert service.client.get(address).json()["result"] is None

    service.succeed(job_id, service.start(job_id), seed=3)

    job = service.client.get(address).json()
    assert job["state"] == "succeeded"
    assert job["result"]["metric"] == "jsd"
    assert [row["id"] for row in job["result"]["neighbours"]] == [kept]
    listed = service.client.get("/v1/tasks").json()["items"]
    assert job["task_id"] not in [task["id"] for task in listed]
    others = service.client.get(f"/v1/tasks/{kept}/neighbours").json()["neighbours"]
    assert job["task_id"] not in [row["id"] for row in others]


def test_images_that_are_only_asked_about_are_ranked_by_the_default_of_their_space(
    service: Service,
) -> None:
    accepted = service.send(ARCHIVE, "/v1/neighbours", k=1)
    job_id, address = accepted.json()["job_id"], accepted.headers["location"]
    assert "metric" not in address
    service.succeed(job_id, service.start(job_id), seed=3, space_id=LIBRARY_SPACE)
    assert service.client.get(address).json()["result"]["metric"] == "combined"
    job = service.client.get(f"{address}&metric=label").json()
    assert job["result"]["metric"] == "label"


def test_images_that_are_only_asked_about_can_be_taken_back(service: Service) -> None:
    job_id = service.send(ARCHIVE, "/v1/neighbours").json()["job_id"]
    assert service.client.delete(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_distances_are_a_matrix_in_the_order_asked(service: Service) -> None:
    ids = [service.ready(seed=seed) for seed in (0, 1, 2)]
    order = [ids[2], ids[0], ids[1]]
    answer = service.client.post("/v1/distances", json={"tasks": order}).json()
    assert answer["tasks"] == order
    assert (answer["metric"], answer["symmetric"]) == ("cosine", True)
    matrix = answer["distances"]
    assert [matrix[n][n] for n in range(3)] == [0, 0, 0]
    assert matrix[0][1] == matrix[1][0]
    expected = one_to_one(embedding_of(2).vector, embedding_of(0).vector, "cosine", epsilon=1e-12)
    assert matrix[0][1] == pytest.approx(expected)


def test_distances_of_an_asymmetric_metric_go_from_row_to_column(service: Service) -> None:
    source, target = service.ready(seed=0), service.ready(seed=1)
    body = {"tasks": [source, target], "metric": "asymmetric_kl"}
    answer = service.client.post("/v1/distances", json=body).json()
    expected = one_to_one(
        embedding_of(1).vector, embedding_of(0).vector, "asymmetric_kl", epsilon=1e-12
    )
    assert answer["symmetric"] is False
    assert answer["distances"][0][1] == pytest.approx(expected)


def test_distances_come_as_csv(service: Service) -> None:
    ids = [service.ready(seed=seed) for seed in (0, 1)]
    answer = service.client.post("/v1/distances?format=csv", json={"tasks": ids})
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == ["task", *ids]
    assert answer.headers["task2vec-metric"] == "cosine"
    assert [row[0] for row in rows[1:]] == ids
    assert float(rows[1][1]) == 0


def test_distances_of_repeated_tasks_are_computed_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = service.ready(seed=0), service.ready(seed=1)
    same = service.ready(seed=0)  # the same images, and so the same embedding
    computed: list[int] = []

    def counted(rows: Any, *args: Any, **options: Any) -> Any:
        computed.append(len(rows))
        return pairwise(rows, *args, **options)

    monkeypatch.setattr(distances, "pairwise", counted)
    body = {"tasks": [here, there, here, same], "metric": "asymmetric_kl"}
    matrix = service.client.post("/v1/distances", json=body).json()["distances"]
    assert computed == [2]
    assert matrix[0][1] == matrix[2][1] == matrix[3][1] > 0
    assert matrix[1][0] == matrix[1][2] == matrix[1][3] > 0
    assert matrix[0][2] == matrix[0][3] == matrix[1][1] == 0


def test_distances_beyond_two_at_once_are_too_many_and_none_holds_the_database(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"tasks": [service.ready(seed=seed) for seed in (0, 1)]}
    both_compute, go_on = threading.Barrier(3), threading.Event()

    def slow(*args: Any, **options: Any) -> Any:
        both_compute.wait(10)
        go_on.wait(10)
        return pairwise(*args, **options)

    monkeypatch.setattr(distances, "pairwise", slow)
    with ThreadPoolExecutor(2) as pool:
        first = [pool.submit(service.client.post, "/v1/distances", json=body) for _ in range(2)]
        try:
            both_compute.wait(10)
            held = service.resources.database._writer.pool.checkedout()  # type: ignore[attr-defined]
            third = service.client.post("/v1/distances", json=body)
        finally:
            go_on.set()
    assert held == 0
    assert_problem(third, 429, "distances-busy")
    assert third.headers["retry-after"]
    assert [answer.result().status_code for answer in first] == [200, 200]
    monkeypatch.undo()
    assert service.client.post("/v1/distances", json=body).status_code == 200


def test_a_long_vector_of_wrong_numbers_gets_one_short_error(service: Service) -> None:
    for entry in ("-1", '"x"', "true", "[1]", "1e39", "1" + "0" * 400):
        answer = service.client.post(
            "/v1/neighbours",
            content=f'{{"vector": [{",".join([entry] * 2000)}], "space_id": "{SPACE}"}}',
            headers={"content-type": "application/json"},
        )
        problem = assert_problem(answer, 422, "request-invalid")
        assert [error["field"] for error in problem["errors"]] == ["vector"]
        assert len(answer.content) < 1000


def test_a_vector_is_read_off_the_event_loop(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops: list[bool] = []
    read = bodies.parse

    def watched(*args: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loops.append(False)
        else:
            loops.append(True)
        return read(*args)

    for module in (bodies, uploads):
        monkeypatch.setattr(module, "parse", watched)
    service.client.post("/v1/neighbours", json={"vector": [1.0], "space_id": SPACE})
    service.client.post("/v1/distances", json={"tasks": ["x"]})
    assert loops == [False, False]


def test_distances_refuse_what_does_not_compare(service: Service) -> None:
    here, there = service.ready(seed=0), service.ready(seed=1, space_id=OTHER_SPACE)
    queued = service.send().json()["id"]
    for tasks, status, code in (
        ([here, there], 409, "different-spaces"),
        ([here, queued], 409, "task-not-ready"),
        ([here, "nobody"], 404, "unknown-task"),
        ([], 422, "request-invalid"),
        ([here] * 1001, 422, "request-invalid"),
    ):
        assert_problem(service.client.post("/v1/distances", json={"tasks": tasks}), status, code)


def test_the_asymmetric_metric_without_a_trivial_task_says_what_is_missing(
    service: Service,
) -> None:
    ids = [service.ready(seed=seed) for seed in (0, 1)]
    answer = service.client.post("/v1/distances", json={"tasks": ids, "metric": "asymmetric"})
    assert_problem(answer, 422, "trivial-unknown")
