"""Tasks of two spaces in one store, and of a store on its way from one to the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.embedding.distance import one_to_one
from app.store import jobs, reindex
from tests.api.conftest import (
    LIBRARY_SPACE,
    OTHER_SPACE,
    SPACE,
    Service,
    archive_of,
    assert_problem,
    embedding_of,
)

PROBE, OTHER_PROBE = "tf_efficientnet_lite0", "tf_efficientnet_lite1"


def neighbours(service: Service, task_id: str) -> tuple[str, list[str]]:
    answer = service.client.get(f"/v1/tasks/{task_id}/neighbours").json()
    return answer["space_id"], [row["id"] for row in answer["neighbours"]]


@pytest.mark.parametrize("search_candidates", [500, 1], ids=["exact", "index"])
def test_two_spaces_stand_side_by_side(
    serve: Callable[..., Service], search_candidates: int
) -> None:
    service = serve(search_candidates=search_candidates)
    here = [service.ready(seed=seed, probe=PROBE) for seed in (0, 1, 2)]
    there = [service.ready(seed=seed, space_id=OTHER_SPACE, probe=OTHER_PROBE) for seed in (0, 1)]
    for ids, space_id, probe in ((here, SPACE, PROBE), (there, OTHER_SPACE, OTHER_PROBE)):
        for task_id in ids:
            task = service.client.get(f"/v1/tasks/{task_id}").json()
            assert (task["space_id"], task["probe"]) == (space_id, probe)
            found_in, found = neighbours(service, task_id)
            assert found_in == space_id
            assert set(found) <= set(ids) - {task_id}
            assert found
            estimates = service.client.get(f"/v1/tasks/{task_id}/estimates")
            assert estimates.status_code == 200
        body = {"vector": embedding_of(0, space_id).vector.tolist(), "space_id": space_id}
        answer = service.client.post("/v1/neighbours", json=body).json()
        assert answer["neighbours"][0]["id"] == ids[0]

    answer = service.client.post("/v1/distances", json={"tasks": there}).json()
    expected = one_to_one(
        embedding_of(0, OTHER_SPACE).vector,
        embedding_of(1, OTHER_SPACE).vector,
        "cosine",
        epsilon=1e-12,
    )
    assert answer["distances"][0][1] == pytest.approx(expected)
    mixed = service.client.post("/v1/distances", json={"tasks": [here[0], there[0]]})
    problem = assert_problem(mixed, 409, "different-spaces")
    assert problem["spaces"] == sorted([SPACE, OTHER_SPACE])


def test_only_the_library_of_its_space_stands_among_a_tasks_neighbours(service: Service) -> None:
    beside, elsewhere = service.ready(seed=9, space_id=LIBRARY_SPACE), service.ready(seed=9)
    assert len(neighbours(service, beside)[1]) == 2
    assert neighbours(service, elsewhere)[1] == []
    for task_id, status in ((beside, 200), (elsewhere, 422)):  # t0 comes with the library
        answer = service.client.post(
            "/v1/distances", json={"tasks": [task_id], "metric": "asymmetric"}
        )
        assert answer.status_code == status


@pytest.mark.parametrize("search_candidates", [500, 1], ids=["exact", "index"])
def test_a_store_on_the_move_answers_from_its_present_space_until_all_are_there(
    serve: Callable[..., Service], search_candidates: int
) -> None:
    service = serve(search_candidates=search_candidates)
    ids = []
    for seed in (0, 1, 2):
        accepted = service.send(archive_of({"a/1.png": bytes([seed]), "b/2.png": b""})).json()
        service.succeed(accepted["job_id"], service.start(accepted["job_id"]), seed)
        ids.append(accepted["id"])
    before = {task_id: neighbours(service, task_id) for task_id in ids}
    resources = service.resources
    with resources.database.session() as session:
        reindex.begin(session, resources.blobs, OTHER_PROBE, OTHER_SPACE)
    for seed in (0, 1, 2):
        assert {task_id: neighbours(service, task_id) for task_id in ids} == before
        with resources.database.session(read_only=True) as session:
            job_id = jobs.next_in_background(session)
        assert job_id is not None
        job = service.client.get(f"/v1/jobs/{job_id}").json()
        assert (job["kind"], job["state"], job["task_id"]) == ("reindex", "queued", ids[seed])
        service.succeed(job_id, service.start(job_id), seed, OTHER_SPACE)
    for task_id in ids:
        space_id, found = neighbours(service, task_id)
        assert space_id == OTHER_SPACE
        assert set(found) <= set(ids) - {task_id}
        assert found
        task = service.client.get(f"/v1/tasks/{task_id}").json()
        assert (task["status"], task["space_id"]) == ("ready", OTHER_SPACE)
        assert task["probe"] == OTHER_PROBE
    left = {"vector": embedding_of(0).vector.tolist(), "space_id": SPACE}
    assert service.client.post("/v1/neighbours", json=left).json()["neighbours"] == []
