from __future__ import annotations

import base64

import pytest
from sqlalchemy import func, select

from app.errors import Conflict, Forbidden, InvalidRequest, NotFound
from app.store import embeddings, intake, jobs, tasks
from app.store.session import Database
from app.store.tables import PUBLIC, Base, Embedding, Task, TaskTag, now
from tests.store.samples import INTAKE, accept_task, make_embedding, ready_task


def names(found: list[Task]) -> list[str]:
    return [task.name for task in found]


def test_pages_hold_every_task_once_newest_first(database: Database) -> None:
    with database.session() as session:
        for number in range(5):
            accept_task(session, name=str(number))
        accept_task(session, tenant="rival", name="not ours")
    seen: list[str] = []
    cursor = None
    with database.session(read_only=True) as session:
        for _ in range(3):
            page, cursor = tasks.list_tasks(session, "acme", limit=2, cursor=cursor)
            seen += names(page)
    assert seen == ["4", "3", "2", "1", "0"]
    assert cursor is None


def test_those_with_an_embedding_are_listed_with_it_and_nobody_elses(database: Database) -> None:
    with database.session() as session:
        for name, space in (("old", "space"), ("new", "other")):
            ready_task(session, make_embedding(space_id=space), name=name, tags=(name,))
        accept_task(session, name="waits")
        ready_task(session, make_embedding(), name="not ours", tenant="rival")
        ready_task(session, make_embedding(), name="asked about").expires_at = now()
    with database.session(read_only=True) as session:
        found, cursor = tasks.list_embedded(session, "acme", limit=9)
        assert (names(found), cursor) == (["new", "old"], None)
        assert [task.embedding.space_id for task in found if task.embedding] == ["other", "space"]
        for narrowed in ({"tag": "old"}, {"space_id": "space"}):
            assert names(tasks.list_embedded(session, "acme", limit=9, **narrowed)[0]) == ["old"]


def test_a_page_is_not_shifted_by_what_is_added_meanwhile(database: Database) -> None:
    with database.session() as session:
        for number in range(4):
            accept_task(session, name=str(number))
        _, cursor = tasks.list_tasks(session, "acme", limit=2)
        accept_task(session, name="late")
        page, cursor = tasks.list_tasks(session, "acme", limit=2, cursor=cursor)
    assert names(page) == ["1", "0"]
    assert cursor is None


def encoded(cursor: str) -> str:
    return base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")


MADE_UP_CURSORS = [
    *("", "nonsense", "ü", encoded("7"), encoded("tasks:-1"), encoded("tasks:01")),
    encoded("tasks:" + "9" * 40),
]


@pytest.mark.parametrize("cursor", MADE_UP_CURSORS)
def test_a_made_up_cursor_is_refused(database: Database, cursor: str) -> None:
    with database.session() as session, pytest.raises(InvalidRequest) as caught:
        tasks.list_tasks(session, "acme", limit=2, cursor=cursor)
    assert caught.value.code == "cursor-invalid"


def test_a_cursor_of_tasks_is_none_of_jobs(database: Database) -> None:
    with database.session() as session:
        for _ in range(2):
            accept_task(session)
        _, cursor = tasks.list_tasks(session, "acme", limit=1)
        assert cursor == encoded("tasks:2")
        with pytest.raises(InvalidRequest) as caught:
            jobs.list_jobs(session, "acme", limit=1, cursor=cursor)
    assert caught.value.code == "cursor-invalid"


def test_tasks_are_found_by_status_tag_and_part_of_the_name(database: Database) -> None:
    with database.session() as session:
        accept_task(session, name="Cats 100%", tags=("animals", "fur", "fur"))
        accept_task(session, name="cars", tags=("vehicles",))
        ready_task(session, make_embedding(), name="dogs", tags=("animals",))

        def found(**filters: str) -> list[str]:
            return names(tasks.list_tasks(session, "acme", limit=10, **filters)[0])

        assert found(tag="animals") == ["dogs", "Cats 100%"]
        assert found(tag="fur") == ["Cats 100%"]
        assert found(status="ready") == ["dogs"]
        assert found(query="CA") == ["cars", "Cats 100%"]
        assert found(query="%") == ["Cats 100%"]
        assert found(tag="animals", status="queued") == ["Cats 100%"]


def test_a_task_that_is_only_asked_about_is_not_listed(database: Database) -> None:
    with database.session() as session:
        task, _ = accept_task(session)
        task.expires_at = now()
        assert tasks.list_tasks(session, "acme", limit=10) == ([], None)
        assert tasks.get_task(session, "acme", task.id) is task


def test_another_tenants_task_does_not_exist_and_a_public_one_is_read_only(
    database: Database,
) -> None:
    with database.session() as session:
        own, _ = accept_task(session)
        public, _ = accept_task(session, tenant=PUBLIC)
        assert tasks.get_task(session, "acme", public.id) is public
        with pytest.raises(Forbidden):
            tasks.get_own_task(session, "acme", public.id)
        for get in (tasks.get_task, tasks.get_own_task):
            with pytest.raises(NotFound):
                get(session, "rival", own.id)


def test_an_update_changes_only_what_is_given(database: Database) -> None:
    with database.session() as session:
        task, _ = accept_task(session, name="cats", tags=("a", "b"))
        task_id, touched = task.id, task.updated_at
    with database.session() as session:
        task = tasks.get_own_task(session, "acme", task_id)
        tasks.update_task(session, task, tags=["b", "c"])
    with database.session() as session:
        task = tasks.get_own_task(session, "acme", task_id)
        assert (task.name, [tag.tag for tag in task.tags]) == ("cats", ["b", "c"])
        assert task.updated_at > touched
        tasks.update_task(session, task, name="lynxes")
    with database.session() as session:
        task = tasks.get_own_task(session, "acme", task_id)
        assert (task.name, [tag.tag for tag in task.tags]) == ("lynxes", ["b", "c"])


def test_the_last_task_takes_embedding_and_blobs_with_it(database: Database) -> None:
    with database.session() as session:
        first = ready_task(session, make_embedding(), recipe="same")
        second = ready_task(session, make_embedding(), recipe="same")
        assert first.embedding_seq == second.embedding_seq
        assert tasks.delete_task(session, first) == []
        assert session.scalar(select(func.count()).select_from(Embedding)) == 1
    with database.session() as session:
        second = tasks.get_own_task(session, "acme", second.id)
        assert tasks.delete_task(session, second) == ["a" * 64]
    with database.session(read_only=True) as session:
        for table in Base.metadata.sorted_tables:
            left = session.scalar(select(func.count()).select_from(table))
            kept = table.name in ("embedding_graves", "tallies")  # a grave, and counts of jobs
            assert bool(left) == kept, table.name


def test_deleting_a_task_stops_the_worker_that_holds_its_job(database: Database) -> None:
    with database.session() as session:
        task, job = accept_task(session, tags=("a",))
        start = jobs.start_job(session, job.id, 3)
        assert start is not None
    with database.session() as session:
        tasks.delete_task(session, tasks.get_own_task(session, "acme", task.id))
    with database.session() as session:
        assert jobs.start_job(session, job.id, 3) is None
        with pytest.raises(Conflict) as caught:
            jobs.report_progress(session, job.id, start.token, "fisher", 1, 2, None)
        assert session.scalar(select(func.count()).select_from(TaskTag)) == 0
    assert caught.value.code == "stale-token"


def test_the_same_recipe_is_found_within_one_tenant_only(database: Database) -> None:
    with database.session() as session:
        task = ready_task(session, make_embedding(), recipe="same")
        found = embeddings.find(session, "acme", "same")
        assert found is not None
        assert found.seq == task.embedding_seq
        assert intake.of_embedding(session, found.seq) == INTAKE
        assert embeddings.find(session, "rival", "same") is None
