"""A store moves to another space: nothing is lost, and nobody sees a part of it."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from app.errors import Conflict
from app.store import embeddings, jobs, reindex, spaces, tasks, turns
from app.store.blobs import BlobStore
from app.store.jobs import Start
from app.store.neighbours import neighbours
from app.store.reindex import Begun
from app.store.search import Indexes
from app.store.session import Database
from app.store.spaces import REINDEX, SpaceCount
from app.store.tables import PUBLIC, Embedding, Job, Outbox, Task, now
from tests.store.samples import INTAKE, MORE, accept_task, make_embedding, ready_task

PROBLEM = {"type": "/problems/blob-missing", "status": 404, "detail": "The bytes are gone."}


def fill(database: Database, blobs: BlobStore, count: int, tenant: str = "acme") -> list[str]:
    """Tasks of the space `space`, with their images."""
    with database.session() as session:
        return [
            ready_task(
                session,
                make_embedding(seed),
                tenant=tenant,
                name=f"{tenant} {seed}",
                archive=blobs.put(io.BytesIO(f"{tenant} {seed}".encode())),
            ).id
            for seed in range(count)
        ]


def begin(database: Database, blobs: BlobStore, space_id: str = "new") -> Begun:
    with database.session() as session:
        return reindex.begin(session, blobs, f"probe of {space_id}", space_id)


def start(database: Database) -> Start:
    """What an idle worker takes up."""
    with database.session() as session:
        job_id = jobs.next_in_background(session)
        assert job_id is not None
        started = jobs.start_job(session, job_id, max_attempts=3)
    assert started is not None
    return started


def embed(database: Database, started: Start, space_id: str = "new") -> None:
    made = make_embedding(len(started.task_id), space_id=space_id, probe=started.probe)
    with database.session() as session:
        recipe = f"{started.archives[0].sha256[:32]} {space_id}"
        row = embeddings.add(session, started.tenant, recipe, made)
        jobs.finish_job(
            session, started.job_id, started.token, "succeeded", intake=INTAKE, embedding=row
        )


def fail(database: Database, started: Start) -> None:
    with database.session() as session:
        jobs.finish_job(session, started.job_id, started.token, "failed", problem=PROBLEM)


def where(database: Database, tenant: str = "acme") -> list[tuple[str, str]]:
    """Status and space of the tenant's tasks, oldest first."""
    with database.session(read_only=True) as session:
        rows = session.execute(
            select(Task.status, Embedding.space_id)
            .join(Embedding, Task.embedding_seq == Embedding.seq)
            .where(Task.tenant == tenant)
            .order_by(Task.seq)
        )
        return [(status, space_id) for status, space_id in rows]


def kept(database: Database) -> list[str]:
    """The spaces of the embeddings that a sweep leaves."""
    with database.session() as session:
        embeddings.sweep(session, limit=100)
        return list(session.scalars(select(Embedding.space_id).order_by(Embedding.seq)))


def test_ended_jobs_of_a_move_are_kept_until_all_of_it_is_there(
    database: Database, blobs: BlobStore
) -> None:
    fill(database, blobs, 2)
    begin(database, blobs)
    embed(database, start(database))
    later = now() + timedelta(days=1)
    ended = select(Job.kind).where(Job.state == "succeeded")
    with database.session() as session:
        jobs.expire(session, later)
        assert session.scalars(ended).all() == [REINDEX]
    embed(database, start(database))
    assert where(database) == [("ready", "new")] * 2
    with database.session() as session:
        jobs.expire(session, later)
        assert session.scalars(ended).all() == []


def test_a_store_moves_behind_the_present_space_and_changes_over_at_once(
    database: Database, indexes: Indexes, blobs: BlobStore
) -> None:
    ids = fill(database, blobs, 3)
    assert begin(database, blobs) == Begun(queued=3)
    for done in range(2):
        started = start(database)
        assert (started.kind, started.probe, started.task_id) == (
            "reindex",
            "probe of new",
            ids[done],
        )
        assert where(database) == [("ready", "space")] * 3
        embed(database, started)
    with database.session(read_only=True) as session:
        found = neighbours(session, indexes, "acme", make_embedding(0), k=9, search_candidates=100)
        assert [neighbour.task.id for neighbour in found.neighbours][:1] == ids[:1]
        assert len(found.neighbours) == 3
        assert {task.probe for task in session.scalars(select(Task))} == {"probe"}

    embed(database, start(database))

    assert where(database) == [("ready", "new")] * 3
    assert kept(database) == ["new"] * 3
    with database.session(read_only=True) as session:
        assert {task.probe for task in session.scalars(select(Task))} == {"probe of new"}
        asked = make_embedding(0, space_id="new")
        found = neighbours(session, indexes, "acme", asked, k=9, search_candidates=100)
        assert len(found.neighbours) == 3
        assert spaces.count_tasks(session) == [SpaceCount("new", "probe of new", 3, 0)]


def test_what_was_only_asked_about_stays_where_it_is(database: Database, blobs: BlobStore) -> None:
    ids = fill(database, blobs, 2)
    with database.session() as session:
        tasks.get_own_task(session, "acme", ids[1]).expires_at = now() + timedelta(days=1)
    assert begin(database, blobs).queued == 1
    embed(database, start(database))
    assert where(database) == [("ready", "new"), ("ready", "space")]
    with database.session(read_only=True) as session:
        assert spaces.count_tasks(session) == [SpaceCount("new", "probe of new", 1, 0)]


def test_each_tenant_changes_over_by_itself(database: Database, blobs: BlobStore) -> None:
    fill(database, blobs, 1, "acme")
    fill(database, blobs, 1, "rival")
    begin(database, blobs)
    embed(database, start(database))
    assert where(database, "acme") == [("ready", "new")]
    assert where(database, "rival") == [("ready", "space")]


def test_a_move_begun_again_goes_on_and_one_that_is_over_has_nothing_to_do(
    database: Database, blobs: BlobStore
) -> None:
    fill(database, blobs, 2)
    begin(database, blobs)
    embed(database, start(database))
    assert begin(database, blobs) == Begun(moving=2)
    embed(database, start(database))
    assert begin(database, blobs) == Begun(there=2)
    with database.session(read_only=True) as session:
        moves = select(func.count()).where(Job.kind == "reindex")
        assert session.scalar(moves) == 2


def test_what_cannot_be_moved_is_told_and_stays_where_it_is(
    database: Database, blobs: BlobStore
) -> None:
    moved, lost = fill(database, blobs, 2)
    with database.session() as session:
        (archive,) = tasks.get_own_task(session, "acme", lost).archives
        blobs.delete(archive.sha256)
        queued, _ = accept_task(session, name="not embedded yet")
        ready_task(session, make_embedding(7), tenant=PUBLIC, name="library")
        _, job = accept_task(session, name="refused")
        started = jobs.start_job(session, job.id, max_attempts=3)
        assert started is not None
        jobs.finish_job(session, job.id, started.token, "refused", problem=PROBLEM)
    assert begin(database, blobs) == Begun(queued=1, busy=[queued.id], without_images=[lost])
    with database.session() as session:
        jobs.request_cancel(session, "acme", jobs.list_jobs(session, "acme", limit=9)[0][-1].id)
        tasks.delete_task(session, tasks.get_own_task(session, "acme", queued.id))
    started = start(database)
    assert started.task_id == moved
    embed(database, started)
    assert where(database) == [("ready", "new"), ("ready", "space")]
    assert where(database, PUBLIC) == [("ready", "space")]
    with database.session(read_only=True) as session:
        assert spaces.count_tasks(session) == [
            SpaceCount("space", "probe", 2, 1),
            SpaceCount("new", "probe of new", 1, 0),
        ]


def test_a_task_that_fails_is_left_behind_with_the_reason_and_can_be_moved_later(
    database: Database, blobs: BlobStore
) -> None:
    failed, _ = fill(database, blobs, 2)
    begin(database, blobs)
    fail(database, start(database))
    embed(database, start(database))
    assert where(database) == [("ready", "space"), ("ready", "new")]
    with database.session(read_only=True) as session:
        task = tasks.get_task(session, "acme", failed)
        assert (task.version, len(task.archives), task.problem) == (1, 1, PROBLEM)
        (left,) = reindex.progress(session).left
        assert (left.task_id, left.tenant, left.state) == (failed, "acme", "failed")
        assert left.detail == "The bytes are gone."
    assert begin(database, blobs) == Begun(queued=1, there=1)
    embed(database, start(database))
    assert where(database) == [("ready", "new")] * 2
    with database.session(read_only=True) as session:
        assert reindex.progress(session).left == []
        assert tasks.get_task(session, "acme", failed).problem is None


def test_a_move_elsewhere_ends_the_one_before_and_drops_what_it_made(
    database: Database, blobs: BlobStore
) -> None:
    fill(database, blobs, 3)
    begin(database, blobs, "first")
    embed(database, start(database), "first")
    running = start(database)
    assert begin(database, blobs, "second") == Begun(queued=3)
    assert kept(database) == ["space"] * 3
    with pytest.raises(Conflict, match="no longer holds"):
        embed(database, running, "first")
    for _ in range(3):
        embed(database, start(database), "second")
    assert where(database) == [("ready", "second")] * 3
    assert kept(database) == ["second"] * 3


def test_a_move_back_to_where_everything_is_ends_the_one_under_way(
    database: Database, blobs: BlobStore
) -> None:
    fill(database, blobs, 2)
    begin(database, blobs)
    embed(database, start(database))
    assert begin(database, blobs, "space") == Begun(there=2)
    with database.session(read_only=True) as session:
        assert jobs.next_in_background(session) is None
    assert where(database) == [("ready", "space")] * 2
    assert kept(database) == ["space"] * 2


def test_more_images_take_their_task_out_of_the_move_and_the_others_go_on(
    database: Database, blobs: BlobStore
) -> None:
    embedded, running, _ = ids = fill(database, blobs, 3)
    begin(database, blobs)
    embed(database, start(database))
    started = start(database)
    assert started.task_id == running
    with database.session() as session:
        added = [
            tasks.add_images(session, tasks.get_own_task(session, "acme", task_id), MORE).id
            for task_id in (embedded, running)
        ]
    assert kept(database) == ["space"] * 3
    with pytest.raises(Conflict, match="no longer holds"):
        embed(database, started)
    for job_id in added:
        with database.session() as session:
            version = jobs.start_job(session, job_id, max_attempts=3)
            assert version is not None
            assert version.probe == "probe"
            row = embeddings.add(session, "acme", job_id, make_embedding(7))
            jobs.finish_job(session, job_id, version.token, "succeeded", embedding=row)
    last = start(database)
    assert last.task_id == ids[2]
    embed(database, last)
    assert where(database) == [("ready", "space"), ("ready", "space"), ("ready", "new")]


@pytest.mark.parametrize("how", ["delete", "cancel"])
def test_the_others_change_over_when_the_last_one_awaited_is_taken_out(
    database: Database, blobs: BlobStore, how: str
) -> None:
    fill(database, blobs, 2)
    begin(database, blobs)
    embed(database, start(database))
    with database.session() as session:
        job_id = jobs.next_in_background(session)
        assert job_id is not None
        job = jobs.get_job(session, "acme", job_id)
        if how == "delete":
            tasks.delete_task(session, job.task)
        else:
            jobs.request_cancel(session, "acme", job_id)
    expected = [("ready", "new")]
    assert where(database) == (expected if how == "delete" else [*expected, ("ready", "space")])


def test_a_task_deleted_while_it_waits_for_the_others_leaves_no_embedding(
    database: Database, blobs: BlobStore
) -> None:
    first, _ = fill(database, blobs, 2)
    begin(database, blobs)
    embed(database, start(database))
    assert kept(database) == ["space", "space", "new"]
    with database.session() as session:
        tasks.delete_task(session, tasks.get_own_task(session, "acme", first))
    assert kept(database) == ["space"]


def test_a_job_of_the_background_waits_until_nothing_else_is_unfinished(
    database: Database, blobs: BlobStore
) -> None:
    fill(database, blobs, 2)
    begin(database, blobs)
    with database.session() as session:
        _, upload = accept_task(session)
        assert jobs.next_in_background(session) is None
        assert jobs.unfinished(session) == []  # it waits for its turn
        turns.take(session, 1, None)
        assert jobs.unfinished(session) == [(upload.id, "embed_task")]
        assert jobs.oldest_wait_seconds(session).keys() == {REINDEX, "embed_task"}
        jobs.request_cancel(session, "acme", upload.id)
        assert jobs.oldest_wait_seconds(session).keys() == {REINDEX}
        assert session.scalar(select(func.count()).select_from(Outbox)) == 0
    started = start(database)
    with database.session() as session:
        assert jobs.next_in_background(session) is None
        assert jobs.unfinished(session) == [(started.job_id, "reindex")]
        jobs.release_job(session, started.job_id, started.token, counted=True)
        assert jobs.unfinished(session) == [(started.job_id, "reindex")]
        other = jobs.next_in_background(session)
    assert other not in {None, started.job_id}
    assert where(database) == [("ready", "space")] * 2


def test_progress_counts_what_waits_runs_and_is_embedded(
    database: Database, blobs: BlobStore
) -> None:
    fill(database, blobs, 4)
    begin(database, blobs)
    embed(database, start(database))
    start(database)
    with database.session(read_only=True) as session:
        found = reindex.progress(session)
    assert (found.queued, found.running, found.embedded, found.left) == (2, 1, 1, [])
