from __future__ import annotations

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import select

from app.embedding.strips import Strip
from app.embedding.vector import TaskEmbedding
from app.errors import Unavailable
from app.store import strips
from app.store import tasks as store
from app.store.intake import Intake
from app.store.tables import Embedding, Job, Outbox, Task
from tests.api.conftest import (
    ARCHIVE,
    DIMENSIONS,
    SPACE,
    Service,
    archive_of,
    assert_problem,
    embedding_of,
)

pytestmark = pytest.mark.engines("embedded", "servers")


def test_an_archive_becomes_a_queued_task_with_job_outbox_row_and_blob(service: Service) -> None:
    answer = service.send(name="animals", tags=["pets", "farm"], label_kind="single_label")

    assert answer.status_code == 202
    accepted = answer.json()
    assert answer.headers["location"] == f"/v1/tasks/{accepted['id']}"
    task = service.client.get(answer.headers["location"]).json()
    assert task["status"] == "queued"
    assert (task["name"], task["tags"]) == ("animals", ["farm", "pets"])
    assert task["label_kind"] == "single_label"
    assert task["probe"] == "tf_efficientnet_lite0"
    assert task["job_id"] == accepted["job_id"]
    assert task["links"]["job"] == f"/v1/jobs/{accepted['job_id']}"
    assert task["complexity"] is None
    assert task["among_library"] is None
    with service.resources.database.session(read_only=True) as session:
        assert session.scalars(select(Outbox.job_id)).all() == [accepted["job_id"]]
    assert len(service.blobs()) == 1


def test_a_task_without_metadata_is_named_for_its_archive(service: Service) -> None:
    files = {"archive": ("my sets/Animals.tar.GZ", ARCHIVE)}
    accepted = service.client.post("/v1/tasks", files=files).json()
    assert service.client.get(f"/v1/tasks/{accepted['id']}").json()["name"] == "Animals"


def test_the_same_bytes_twice_are_two_tasks_and_one_blob(service: Service) -> None:
    first, second = service.send().json(), service.send().json()
    assert first["id"] != second["id"]
    assert len(service.blobs()) == 1


def test_a_ready_task_tells_counts_complexity_noise_floor_space_and_provenance(
    service: Service,
) -> None:
    task = service.client.get(f"/v1/tasks/{service.ready(seed=3)}").json()
    embedding = embedding_of(3)
    assert task["status"] == "ready"
    assert task["counts"] == {"images": 40, "classes": 2}
    assert task["intake"]["classes"] == {"cat": 20, "dog": 20}
    assert task["complexity"] == pytest.approx(embedding.complexity)
    assert task["among_library"] == {"tasks": 0, "easier": 0}
    assert task["noise_floor"] == 0.01
    assert task["space_id"] == SPACE
    assert task["provenance"]["seed"] == 3
    assert task["links"]["neighbours"] == f"/v1/tasks/{task['id']}/neighbours"


def test_a_refused_task_carries_the_problem_document_of_its_job(service: Service) -> None:
    accepted = service.send().json()
    problem = {"type": "/problems/one-class", "status": 422, "remedy": "Add a class."}
    service.refuse(accepted["job_id"], problem)
    task = service.client.get(f"/v1/tasks/{accepted['id']}").json()
    assert task["status"] == "refused"
    assert task["problem"] == problem
    conflict = service.client.get(f"/v1/tasks/{accepted['id']}/embedding")
    told = assert_problem(conflict, 409, "task-not-ready")
    assert told["task_status"] == "refused"
    assert f"`problem` of `GET /v1/tasks/{accepted['id']}`" in told["remedy"]


def test_a_truncated_archive_is_refused_at_once_and_nothing_is_kept(service: Service) -> None:
    answer = service.send(ARCHIVE[: len(ARCHIVE) // 2])
    assert_problem(answer, 422, "archive-damaged")
    assert service.blobs() == []
    assert service.client.get("/v1/tasks").json()["items"] == []


def test_no_archive_at_all_is_an_unsupported_medium(service: Service) -> None:
    assert_problem(service.send(b"\x89PNG\r\n\x1a\n"), 415, "archive-unsupported")


def test_a_path_that_leads_out_of_the_archive_is_refused(service: Service) -> None:
    answer = service.send(archive_of({"../../etc/passwd": b"x"}))
    assert answer.status_code == 422
    assert answer.json()["remedy"]
    assert service.blobs() == []


def test_more_entries_than_allowed_are_too_large(serve: Callable[..., Service]) -> None:
    answer = serve(max_archive_entries=1).send()
    assert_problem(answer, 413, "archive-too-many-entries")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_told_as_a_problem(
    serve: Callable[..., Service], chunked: bool
) -> None:
    service = serve(max_upload_bytes=1)
    form = service.client.build_request(
        "POST", "/v1/tasks", files={"archive": ("a.zip", b"0" * 300_000)}
    )
    body = form.read()
    content = (body[at : at + 1000] for at in range(0, len(body), 1000)) if chunked else body
    headers = {"content-type": form.headers["content-type"]}
    answer = service.client.post("/v1/tasks", content=content, headers=headers)
    assert_problem(answer, 413, "body-too-large")


def test_a_failed_commit_leaves_no_blob(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    create = store.create_task

    def create_and_break(session, tenant, **fields):  # type: ignore[no-untyped-def]
        task, job = create(session, tenant, **fields)
        session.add(Job(id=job.id, tenant=tenant, kind="x", task_seq=task.seq, state="queued"))
        return task, job

    monkeypatch.setattr(store, "create_task", create_and_break)
    assert_problem(service.send(), 500, "internal-error")
    assert service.blobs() == []
    with service.resources.database.session(read_only=True) as session:
        assert session.scalars(select(Task).where(Task.tenant == "local")).all() == []


def test_a_failed_request_keeps_a_blob_that_another_task_is_made_of(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.send()

    def fail(*_: object, **__: object) -> None:
        raise Unavailable("nothing", "No.", "Wait.")

    monkeypatch.setattr(store, "create_task", fail)
    assert_problem(service.send(), 503, "nothing")
    assert len(service.blobs()) == 1


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ('{"nmae": "x"}', "metadata.nmae"),
        ('{"name": ""}', "metadata.name"),
        ('{"name": 3}', "metadata.name"),
        ('{"tags": "pets"}', "metadata.tags"),
        ('{"label_kind": "many"}', "metadata.label_kind"),
        ('{"name": "\\ud800"}', "metadata"),
        ("{", "metadata"),
        ("[]", "metadata"),
    ],
)
def test_metadata_that_does_not_fit_names_the_field(
    service: Service, metadata: str, field: str
) -> None:
    answer = service.client.post(
        "/v1/tasks", files={"archive": ("a.zip", ARCHIVE)}, data={"metadata": metadata}
    )
    problem = assert_problem(answer, 422, "request-invalid")
    assert [error["field"] for error in problem["errors"]] == [field]
    assert service.blobs() == []


def test_parts_that_nobody_reads_are_refused(service: Service) -> None:
    answer = service.client.post(
        "/v1/tasks", files={"archive": ("a.zip", ARCHIVE)}, data={"label": "x"}
    )
    assert assert_problem(answer, 422, "request-invalid")["errors"][0]["field"] == "label"


@pytest.mark.parametrize("filename", [None, "about.json"])
def test_metadata_over_its_limit_is_too_large(service: Service, filename: str | None) -> None:
    files: dict[str, tuple[str | None, bytes]] = {
        "archive": ("a.zip", ARCHIVE),
        "metadata": (filename, json.dumps({"name": "x" * 70_000}).encode()),
    }
    problem = assert_problem(
        service.client.post("/v1/tasks", files=files), 413, "metadata-too-large"
    )
    assert "65536" in problem["detail"]
    assert service.blobs() == []


def test_a_list_of_tasks_leaves_their_intake_out(service: Service) -> None:
    task_id = service.ready()
    (row,) = service.client.get("/v1/tasks").json()["items"]
    task = service.client.get(f"/v1/tasks/{task_id}").json()
    assert task.pop("intake")["classes"]
    assert task.pop("among_library")["easier"] == 0
    assert row == task


def test_a_task_that_gets_more_images_goes_on_with_the_embedding_it_has(service: Service) -> None:
    task_id, other = service.ready(seed=1), service.ready(seed=2)
    before = service.client.get(f"/v1/tasks/{task_id}/embedding").json()
    job_id = service.send(path=f"/v1/tasks/{task_id}/images").json()["job_id"]
    for status in ("queued", "embedding"):
        task = service.client.get(f"/v1/tasks/{task_id}").json()
        assert task["status"] == status
        assert {"embedding", "neighbours", "estimates"} <= set(task["links"])
        assert service.client.get(f"/v1/tasks/{task_id}/embedding").json() == before
        for what in ("neighbours", "estimates"):
            assert service.client.get(f"/v1/tasks/{task_id}/{what}").status_code == 200
        answer = service.client.post("/v1/distances", json={"tasks": [task_id, other]})
        assert answer.status_code == 200
        if status == "queued":
            service.start(job_id)


def test_a_form_without_an_archive_says_so(service: Service) -> None:
    answer = service.client.post("/v1/tasks", files={"metadata": (None, "{}")})
    assert assert_problem(answer, 422, "request-invalid")["errors"][0]["field"] == "archive"


def test_an_unknown_probe_lists_the_probes_there_are(service: Service) -> None:
    problem = assert_problem(service.send(probe="resnet"), 422, "unknown-card")
    assert "tf_efficientnet_lite0" in problem["remedy"]
    assert service.blobs() == []


def test_an_archive_as_the_whole_body_is_an_unsupported_content_type(service: Service) -> None:
    headers = {"content-type": "application/zip"}
    answer = service.client.post("/v1/tasks", content=ARCHIVE, headers=headers)
    assert "multipart/form-data" in assert_problem(answer, 415, "content-type")["remedy"]


def test_a_source_outside_the_allowed_prefixes_is_forbidden(
    serve: Callable[..., Service],
) -> None:
    service = serve(source_prefixes=("file:///data/sets/", "https://example.org/sets/"))
    for source in (
        "file:///etc/passwd",
        "file:///data/sets/../../etc/passwd",
        "file:///data/sets/%2e%2e/secret.zip",
        "file:///data/sets-of-others/a.zip",
        "https://example.org.evil.test/sets/a.zip",
        "https://user@example.org/sets/a.zip",
        "https://:secret@example.org/sets/a.zip",
        "https://example.org:8443/sets/a.zip",
    ):
        answer = service.client.post("/v1/tasks", json={"source": source})
        assert (
            "TASK2VEC_SOURCE_PREFIXES"
            in assert_problem(answer, 403, "source-not-allowed")["remedy"]
        )


@pytest.mark.parametrize("source", ["ftp://example.org/a.zip", "a.zip", "https://[::1/a.zip"])
def test_a_source_that_is_no_uri_of_a_known_kind_is_refused(service: Service, source: str) -> None:
    assert_problem(service.client.post("/v1/tasks", json={"source": source}), 422, "source-scheme")


@pytest.mark.parametrize(
    "source", ["file:///data/sets/b/animals.zip", "https://example.org/sets/animals.zip"]
)
def test_a_source_under_an_allowed_prefix_becomes_a_task(
    serve: Callable[..., Service], source: str
) -> None:
    service = serve(source_prefixes=("file:///data/sets/", "https://example.org/sets/"))
    answer = service.client.post("/v1/tasks", json={"source": source})
    assert answer.status_code == 202
    task = service.client.get(answer.headers["location"]).json()
    assert (task["source"], task["name"]) == (source, "animals")


def test_pages_hold_every_task_once_newest_first(service: Service) -> None:
    ids = [service.send(name=f"task {n}").json()["id"] for n in range(5)]
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = service.client.get("/v1/tasks", params=query).json()
        assert len(page["items"]) <= 2
        seen += [task["id"] for task in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]


def test_tasks_are_found_by_status_tag_and_part_of_the_name(service: Service) -> None:
    ready = service.ready(name="Brown bears", tags=["zoo"])
    queued = service.send(name="bearings").json()["id"]

    def found(**query: str) -> list[str]:
        return [
            task["id"] for task in service.client.get("/v1/tasks", params=query).json()["items"]
        ]

    assert found(status="ready") == [ready]
    assert found(tag="zoo") == [ready]
    assert found(q="BEAR") == [queued, ready]
    assert found(q="100%") == []
    assert found(library="true") == [
        "ref-tf_efficientnet_lite0-shipped-2",
        "ref-tf_efficientnet_lite0-shipped-1",
    ]


def test_a_cursor_nobody_gave_out_is_refused(service: Service) -> None:
    answer = service.client.get("/v1/tasks", params={"cursor": "c2VxOjE9"})
    assert_problem(answer, 422, "cursor-invalid")


def test_a_patch_changes_what_it_names_and_nothing_else(service: Service) -> None:
    task_id = service.send(name="before", tags=["old"]).json()["id"]
    changed = service.client.patch(f"/v1/tasks/{task_id}", json={"name": "after"}).json()
    assert (changed["name"], changed["tags"]) == ("after", ["old"])
    changed = service.client.patch(f"/v1/tasks/{task_id}", json={"tags": ["new"]}).json()
    assert (changed["name"], changed["tags"]) == ("after", ["new"])


def test_a_patch_with_unknown_fields_or_types_is_refused(service: Service) -> None:
    task_id = service.send().json()["id"]
    for body, field in (({"status": "ready"}, "status"), ({"tags": [False]}, "tags.0")):
        answer = service.client.patch(f"/v1/tasks/{task_id}", json=body)
        assert assert_problem(answer, 422, "request-invalid")["errors"][0]["field"] == field


def test_json_sent_as_something_else_is_an_unsupported_content_type(service: Service) -> None:
    task_id = service.send().json()["id"]
    for headers in ({}, {"content-type": "text/plain"}):
        answer = service.client.patch(f"/v1/tasks/{task_id}", content="{}", headers=headers)
        assert_problem(answer, 415, "content-type")


def test_broken_json_says_where(service: Service) -> None:
    answer = service.client.patch(
        "/v1/tasks/x", content='{"name": ', headers={"content-type": "application/json"}
    )
    problem = assert_problem(answer, 422, "request-invalid")
    assert problem["errors"] == [
        {"field": "body", "message": "not JSON: EOF while parsing a value at line 1 column 9"}
    ]


def test_a_deleted_task_is_gone_with_its_job_and_its_bytes(service: Service) -> None:
    accepted = service.send().json()
    assert service.client.delete(f"/v1/tasks/{accepted['id']}").status_code == 204
    assert_problem(service.client.get(f"/v1/tasks/{accepted['id']}"), 404, "unknown-task")
    assert_problem(service.client.get(f"/v1/jobs/{accepted['job_id']}"), 404, "unknown-job")
    assert service.blobs() == []


def test_bytes_that_another_task_needs_outlive_a_deleted_one(service: Service) -> None:
    first, second = service.send().json()["id"], service.send().json()["id"]
    service.client.delete(f"/v1/tasks/{first}")
    assert len(service.blobs()) == 1
    assert service.client.get(f"/v1/tasks/{second}").status_code == 200


@pytest.mark.parametrize("weird", ["nobody", "%00", "a%20b", "x" * 200, "..%2F..", "%F0%9F%90%88"])
def test_ids_that_nothing_has_are_not_found(service: Service, weird: str) -> None:
    for address in (f"/v1/tasks/{weird}", f"/v1/tasks/{weird}/neighbours", f"/v1/jobs/{weird}"):
        answer = service.client.get(address)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_more_images_are_a_new_version_with_its_own_job(service: Service) -> None:
    task_id = service.ready()
    more = archive_of({"cat/3.png": b"third"})
    answer = service.send(more, f"/v1/tasks/{task_id}/images")
    assert answer.status_code == 202
    task = service.client.get(f"/v1/tasks/{task_id}").json()
    assert (task["version"], task["status"]) == (2, "queued")
    assert task["job_id"] == answer.json()["job_id"]
    assert len(service.blobs()) == 2


def test_more_images_while_a_job_is_under_way_are_a_conflict_and_not_kept(
    service: Service,
) -> None:
    task_id = service.send().json()["id"]
    answer = service.send(archive_of({"cat/3.png": b"third"}), f"/v1/tasks/{task_id}/images")
    assert_problem(answer, 409, "task-busy")
    assert len(service.blobs()) == 1


def test_the_intake_report_names_every_file(service: Service) -> None:
    report = service.client.get(f"/v1/tasks/{service.ready()}/intake").json()
    assert report["files"] == [
        {"path": "cat/1.png", "status": "used", "label": "cat", "reason": None}
    ]
    assert report["summary"]["used"] == 40


def test_classes_are_counted_and_the_strips_there_are_can_be_fetched(service: Service) -> None:
    task_id = service.ready()
    with service.resources.database.session() as session:
        row = session.scalars(select(Embedding).where(Embedding.tenant == "local")).one()
        strips.keep(session, row, [Strip("dog", b"RIFF a dog")])
        strips.keep(session, row, [Strip("dog", b"RIFF another")])  # by another worker
    classes = service.client.get(f"/v1/tasks/{task_id}/classes").json()["classes"]
    (cat, dog) = classes
    assert cat == {"label": "cat", "images": 20, "strip": None}
    assert dog["images"] == 20
    strip = service.client.get(dog["strip"])
    assert (strip.content, strip.headers["content-type"]) == (b"RIFF a dog", "image/webp")
    assert_problem(service.client.get(f"/v1/tasks/{task_id}/classes/1/strip"), 404, "no-strip")


def test_classes_are_told_once_there_is_an_intake_report(service: Service) -> None:
    accepted = service.send().json()
    answer = service.client.get(f"/v1/tasks/{accepted['id']}/classes")
    assert_problem(answer, 409, "task-not-ready")


def test_the_intake_report_of_a_refused_task_is_kept(service: Service) -> None:
    accepted = service.send().json()
    files = [{"path": "cat/1.png", "status": "skipped", "label": "cat", "reason": "not an image"}]
    intake = Intake("auto", None, None, {"used": 0, "skipped": 1}, files)
    service.refuse(accepted["job_id"], {"status": 422}, intake)
    report = service.client.get(f"/v1/tasks/{accepted['id']}/intake").json()
    assert (report["files"], report["summary"]) == (files, intake.summary)


def test_a_task_without_an_intake_report_says_why(service: Service) -> None:
    accepted = service.send().json()
    service.refuse(accepted["job_id"], {"status": 422})
    for task_id, why in (
        (accepted["id"], "not all"),
        ("ref-tf_efficientnet_lite0-shipped-1", "without images"),
    ):
        answer = service.client.get(f"/v1/tasks/{task_id}/intake")
        assert why in assert_problem(answer, 404, "no-intake")["detail"]


def test_more_images_of_a_refused_task_are_a_conflict_and_not_kept(service: Service) -> None:
    accepted = service.send().json()
    service.refuse(accepted["job_id"], {"status": 422})
    more = archive_of({"cat/3.png": b"third"})
    answer = service.send(more, f"/v1/tasks/{accepted['id']}/images")
    assert "new task" in assert_problem(answer, 409, "task-not-embedded")["remedy"]
    assert len(service.blobs()) == 1


def test_an_intake_report_before_its_time_is_a_conflict(service: Service) -> None:
    task_id = service.send().json()["id"]
    assert_problem(service.client.get(f"/v1/tasks/{task_id}/intake"), 409, "task-not-ready")


def test_an_embedding_comes_as_json_npy_or_npz(service: Service) -> None:
    address, expected = f"/v1/tasks/{service.ready(seed=5)}/embedding", embedding_of(5)

    told = service.client.get(address).json()
    assert told["dimension"] == DIMENSIONS
    np.testing.assert_array_equal(np.float32(told["vector"]), expected.vector)
    np.testing.assert_array_equal(np.float32(told["domain"]), expected.domain)

    npy = service.client.get(address, headers={"accept": "application/x-npy"})
    assert npy.headers["content-type"] == "application/x-npy"
    np.testing.assert_array_equal(np.load(io.BytesIO(npy.content)), expected.vector)

    npz = service.client.get(address, params={"format": "npz"})
    assert npz.headers["content-type"] == "application/zip"
    read = TaskEmbedding.from_npz(npz.content)
    np.testing.assert_array_equal(read.sampling_error, expected.sampling_error)
    assert read.provenance == expected.provenance


def test_an_embedding_before_its_time_is_a_conflict(service: Service) -> None:
    task_id = service.send().json()["id"]
    for what in ("embedding", "neighbours", "estimates"):
        answer = service.client.get(f"/v1/tasks/{task_id}/{what}")
        assert_problem(answer, 409, "task-not-ready")
