from __future__ import annotations

import errno
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from app.catalogue import ProbeCard, get_card
from app.embedding.probe import Probe, load_probe
from app.embedding.strips import SIDE
from app.errors import Unavailable
from app.jobs.bench import Workbench
from app.jobs.embed_task import recipe_digest
from app.jobs.engine import HandBack
from app.jobs.housekeeping import sweep_embeddings
from app.jobs.progress import Progress
from app.jobs.run import run_job
from app.settings import Settings
from app.store import embeddings, jobs, reindex, strips, tallies, tasks
from app.store.blobs import UNAVAILABLE, Blob, BlobStore
from app.store.session import Database
from app.store.tables import Embedding, Job, Task
from tests.images import labelled_files, labelled_zip, make_zip
from tests.jobs.conftest import OTHER_PROBE, PROBE, TENANT


@pytest.fixture(scope="module")
def probes(models_dir: Path) -> dict[str, Probe]:
    return {
        name: load_probe(get_card(models_dir, ProbeCard, name), "cpu")
        for name in (PROBE, OTHER_PROBE)
    }


@pytest.fixture(scope="module")
def probe(probes: dict[str, Probe]) -> Probe:
    return probes[PROBE]


@pytest.fixture
def bench(
    settings: Settings, database: Database, blobs: BlobStore, probes: dict[str, Probe]
) -> Workbench:
    settings = settings.model_copy(update={"progress_interval_seconds": 1e-9})
    return Workbench(settings, database, blobs, probes.__getitem__, lambda: False)


class Service:
    """What the API does around a job: accepts, cancels, reads."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    def upload(self, archive: bytes | None, **fields: Any) -> str:
        """The id of the job."""
        blob = None if archive is None else self._bench.blobs.put(io.BytesIO(archive))
        with self._bench.database.session() as session:
            _, job = tasks.create_task(
                session,
                TENANT,
                name="shapes",
                tags=[],
                label_kind=fields.pop("label_kind", "auto"),
                probe=fields.pop("probe", PROBE),
                archive=blob,
                **fields,
            )
        return job.id

    def add_images(self, task: Task, archive: bytes) -> str:
        blob = self._bench.blobs.put(io.BytesIO(archive))
        with self._bench.database.session() as session:
            own = tasks.get_own_task(session, TENANT, task.id)
            return tasks.add_images(session, own, blob).id

    def cancel(self, job_id: str) -> None:
        with self._bench.database.session() as session:
            jobs.request_cancel(session, TENANT, job_id)

    def read(self, job_id: str) -> tuple[Job, Task]:
        with self._bench.database.session(read_only=True) as session:
            job = jobs.get_job(session, TENANT, job_id)
            assert job.task.intake_files is None or job.task.intake_files
            return job, job.task

    def run(self, archive: bytes, **fields: Any) -> tuple[Job, Task]:
        job_id = self.upload(archive, **fields)
        run_job(job_id, self._bench)
        return self.read(job_id)

    def count_embeddings(self) -> int:
        with self._bench.database.session(read_only=True) as session:
            return session.scalar(select(func.count()).select_from(Embedding)) or 0


@pytest.fixture
def service(bench: Workbench) -> Service:
    return Service(bench)


class Phases:
    """Listens to a job's progress, and acts from outside when a phase begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[str, int, int]] = []
        self._acts: dict[str, Callable[[], object]] = {}
        report = Progress.__call__

        def listen(progress: Progress, phase: str, done: int, total: int) -> None:
            self.told.append((phase, done, total))
            if phase in self._acts:
                self._acts.pop(phase)()
            report(progress, phase, done, total)

        monkeypatch.setattr(Progress, "__call__", listen)

    def at(self, phase: str, act: Callable[[], object]) -> None:
        self._acts[phase] = act

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(phase for phase, _, _ in self.told))


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> Phases:
    return Phases(monkeypatch)


def test_uploaded_set_becomes_a_ready_task(
    service: Service, bench: Workbench, phases: Phases, probe: Probe
) -> None:
    job, task = service.run(labelled_zip(2))
    assert (job.state, job.attempts, job.problem) == ("succeeded", 1, None)
    assert (task.status, task.n_images, task.n_classes) == ("ready", 12, 2)
    assert task.label_kind == "single_label"
    assert task.intake_summary is not None
    assert task.intake_summary["used"] == 12
    assert len(task.intake_files or []) == 12
    assert phases.names == ["intake", "features", "head", "fisher"]
    assert phases.told[-1][1:] == (12, 12)
    assert task.embedding_seq is not None
    with bench.database.session(read_only=True) as session:
        embedding = embeddings.load(session, task.embedding_seq)
        shown = strips.numbers(session, task)
        picture = strips.picture(session, task, shown["square"])
    assert embedding.space_id == probe.space_id
    assert embedding.vector.shape == (probe.dim,)
    assert embedding.complexity > 0
    assert list(shown) == ["circle", "square"]
    with Image.open(io.BytesIO(picture)) as strip:
        assert strip.size == (6 * SIDE, SIDE)


def test_same_bytes_again_are_a_new_task_that_shares_the_embedding(
    service: Service, phases: Phases
) -> None:
    _, first = service.run(labelled_zip(2))
    phases.told.clear()
    job, second = service.run(labelled_zip(2))
    assert (job.state, second.status) == ("succeeded", "ready")
    assert second.id != first.id
    assert second.embedding_seq == first.embedding_seq
    assert (second.n_images, second.intake_summary) == (first.n_images, first.intake_summary)
    assert phases.told == []
    assert service.count_embeddings() == 1


def test_same_bytes_asked_another_question_are_computed_anew(service: Service) -> None:
    service.run(labelled_zip(2))
    service.run(labelled_zip(2), label_kind="multi_label")
    assert service.count_embeddings() == 2


def test_set_of_one_class_is_refused_with_the_same_problem_on_task_and_job(
    service: Service,
) -> None:
    job, task = service.run(labelled_zip(1))
    assert (job.state, task.status) == ("refused", "refused")
    assert job.problem == task.problem
    assert job.problem is not None
    assert job.problem["status"] == 422
    assert job.problem["remedy"]
    assert task.embedding_seq is None


def test_set_without_a_readable_image_is_refused_with_its_report(service: Service) -> None:
    broken = make_zip({"a/1.png": b"no image", "b/2.png": b"none either"})
    job, _ = service.run(broken)
    assert job.state == "refused"
    assert job.problem is not None
    assert job.problem["report"]["skipped"] == 2


def test_refused_set_keeps_the_whole_report_of_its_intake(service: Service) -> None:
    broken = {f"a/{number}.png": b"no image" for number in range(120)}
    _, task = service.run(make_zip(broken))
    assert (task.status, task.label_kind, task.n_images) == ("refused", "auto", None)
    assert task.intake_summary is not None
    assert task.intake_summary["skipped"] == 120
    assert [file["path"] for file in task.intake_files or []] == sorted(broken)


@pytest.mark.parametrize("phase", ["intake", "features", "head", "fisher"])
def test_cancel_acts_at_the_next_batch_of_any_phase(
    service: Service, bench: Workbench, phases: Phases, phase: str
) -> None:
    job_id = service.upload(labelled_zip(2, 12))
    phases.at(phase, lambda: service.cancel(job_id))
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status) == ("cancelled", "cancelled")
    assert phases.told.count(phases.told[-1]) == 1
    assert [told[0] for told in phases.told].count(phase) == 1
    assert service.count_embeddings() == 0


def test_job_cancelled_before_its_start_is_not_run(
    service: Service, bench: Workbench, phases: Phases
) -> None:
    job_id = service.upload(labelled_zip(2))
    service.cancel(job_id)
    run_job(job_id, bench)
    assert service.read(job_id)[0].state == "cancelled"
    assert phases.told == []


def test_worker_told_to_stop_hands_the_job_back_uncounted(
    service: Service, bench: Workbench, phases: Phases
) -> None:
    job_id = service.upload(labelled_zip(2))
    told_to_stop: list[bool] = []
    phases.at("fisher", lambda: told_to_stop.append(True))
    leaving = replace(bench, stopping=lambda: bool(told_to_stop))
    with pytest.raises(HandBack):
        run_job(job_id, leaving)
    job, task = service.read(job_id)
    assert (job.state, task.status, job.attempts) == ("queued", "queued", 0)
    with pytest.raises(HandBack):
        run_job(job_id, leaving)
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status, job.attempts) == ("succeeded", "ready", 1)


def test_worker_that_lost_its_job_writes_nothing(
    service: Service, bench: Workbench, phases: Phases
) -> None:
    job_id = service.upload(labelled_zip(2))

    def take_over() -> None:
        with bench.database.session() as session:
            assert jobs.start_job(session, job_id, max_attempts=3)

    phases.at("fisher", take_over)
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status, job.token) == ("running", "embedding", 2)
    assert service.count_embeddings() == 0


def test_task_deleted_meanwhile_stays_deleted(
    service: Service, bench: Workbench, phases: Phases
) -> None:
    job_id = service.upload(labelled_zip(2))

    def delete() -> None:
        with bench.database.session() as session:
            tasks.delete_task(session, jobs.get_job(session, TENANT, job_id).task)

    phases.at("features", delete)
    run_job(job_id, bench)
    assert service.count_embeddings() == 0


def test_job_that_kills_its_workers_ends_as_failed(
    service: Service, bench: Workbench, phases: Phases
) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    job_id = service.upload(labelled_zip(2))
    for _ in range(3):
        phases.at("fisher", kill)
        with pytest.raises(Killed):
            run_job(job_id, bench)
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status, job.attempts) == ("failed", "failed", 3)
    assert job.problem == task.problem
    assert "3 workers died" in (job.problem or {})["detail"]


def test_ended_job_handed_over_again_changes_nothing(service: Service, bench: Workbench) -> None:
    job, task = service.run(labelled_zip(2))
    run_job(job.id, bench)
    again, task_again = service.read(job.id)
    assert (again.attempts, again.finished_at) == (1, job.finished_at)
    assert task_again.embedding_seq == task.embedding_seq


def test_missing_archive_fails_with_a_remedy(service: Service, bench: Workbench) -> None:
    job_id = service.upload(labelled_zip(2))
    job, task = service.read(job_id)
    bench.blobs.delete(task.archives[0].sha256)
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status) == ("failed", "failed")
    assert (task.problem or {})["type"] == "/problems/blob-missing"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("secret at /root/key"), "internal"),
        (OSError(errno.ENOSPC, "No space left on /root/disk"), "no-space"),
        (MemoryError(), "out-of-memory"),
        (torch.cuda.OutOfMemoryError("8 GiB of /root/key"), "out-of-memory"),
    ],
)
def test_unexpected_error_fails_without_telling_internals(
    service: Service, phases: Phases, error: Exception, kind: str
) -> None:
    def break_down() -> None:
        raise error

    phases.at("fisher", break_down)
    job, task = service.run(labelled_zip(2))
    assert (job.state, task.status) == ("failed", "failed")
    assert (job.problem or {})["type"] == f"/problems/{kind}"
    assert "root" not in str(job.problem)
    assert (job.problem or {})["remedy"]


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT 1", {}, Exception("database is locked")),
        OSError(errno.EIO, "Input/output error"),
        Unavailable(UNAVAILABLE, "The store of archives did not answer in time.", "Try again."),
    ],
)
def test_trouble_of_the_machine_is_tried_again_until_the_attempts_are_used_up(
    service: Service, bench: Workbench, phases: Phases, error: Exception
) -> None:
    def break_down() -> None:
        raise error

    job_id = service.upload(labelled_zip(2))
    for attempt in (1, 2):
        phases.at("fisher", break_down)
        with pytest.raises(type(error)):  # ends the engine's run: `reconcile` begins another
            run_job(job_id, bench)
        job, task = service.read(job_id)
        assert (job.state, task.status, job.attempts) == ("queued", "queued", attempt)
    phases.at("fisher", break_down)
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status, job.attempts) == ("failed", "failed", 3)
    told = UNAVAILABLE if isinstance(error, Unavailable) else "internal"
    assert (job.problem or {})["type"] == f"/problems/{told}"
    with bench.database.session(read_only=True) as session:
        (((_, cause), retries),) = tallies.counted(session, "retry").items()
        (((kind, device), work),) = tallies.counted(session, "work").items()
    causes = {OperationalError: "database", OSError: "disk", Unavailable: "blobs"}
    assert (cause, sum(retries.buckets)) == (causes[type(error)], 2)
    assert (kind, device, sum(work.buckets)) == ("embed_task", "cpu", 3)
    assert work.seconds > 0


def test_trouble_that_passes_leaves_no_trace(
    service: Service, bench: Workbench, phases: Phases
) -> None:
    def break_down() -> None:
        raise OSError(errno.EIO, "Input/output error")

    job_id = service.upload(labelled_zip(2))
    phases.at("features", break_down)
    with pytest.raises(OSError, match="Input"):
        run_job(job_id, bench)
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status, job.problem, job.attempts) == ("succeeded", "ready", None, 2)


def test_more_images_with_several_labels_are_read_as_the_task_was_asked_to_be(
    service: Service, bench: Workbench
) -> None:
    _, first = service.run(labelled_zip(2, 5))
    assert first.label_kind == "single_label"
    more = labelled_files(1, 6, seed=1)
    rows = "".join(f"{name},round|new\n" for name in more)
    table = f"file,label\n{rows}".encode()
    job_id = service.add_images(first, make_zip({**more, "labels.csv": table}))
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status, job.problem) == ("succeeded", "ready", None)
    assert (task.label_kind, task.label_kind_asked) == ("multi_label", "auto")


def test_more_images_are_a_new_version_embedded_over_all_archives(
    service: Service, bench: Workbench
) -> None:
    _, first = service.run(labelled_zip(2, 5))
    job_id = service.add_images(first, labelled_zip(2, 4, seed=1))
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status, task.version) == ("succeeded", "ready", 2)
    assert task.n_images == 18
    assert task.embedding_seq != first.embedding_seq
    assert service.count_embeddings() == 1


def test_more_images_that_are_refused_leave_the_task_as_it_was(
    service: Service, bench: Workbench
) -> None:
    _, first = service.run(labelled_zip(2))
    job_id = service.add_images(first, b"no archive at all")
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status) == ("refused", "ready")
    assert job.problem is not None
    assert (task.version, task.embedding_seq) == (1, first.embedding_seq)
    assert len(task.archives) == 1


def test_source_is_fetched_once_into_the_blob_store(
    service: Service, bench: Workbench, phases: Phases, tmp_path: Path
) -> None:
    (tmp_path / "set.zip").write_bytes(labelled_zip(2))
    allowed = bench.settings.model_copy(update={"source_prefixes": (f"file://{tmp_path}/",)})
    job_id = service.upload(None, source=f"file://{tmp_path}/set.zip")
    run_job(job_id, replace(bench, settings=allowed))
    job, task = service.read(job_id)
    assert (job.state, task.status) == ("succeeded", "ready")
    assert phases.names == ["fetch", "intake", "features", "head", "fisher"]
    assert bench.blobs.stored() == [archive.sha256 for archive in task.archives]


def test_source_that_is_not_allowed_is_refused(service: Service, bench: Workbench) -> None:
    job_id = service.upload(None, source="file:///etc/passwd")
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status) == ("refused", "refused")
    assert (task.problem or {})["type"] == "/problems/source-not-allowed"


def test_one_set_through_two_probes_is_two_tasks_in_two_spaces(
    service: Service, bench: Workbench, probes: dict[str, Probe]
) -> None:
    for name in (PROBE, OTHER_PROBE):
        job, task = service.run(labelled_zip(2), probe=name)
        assert (job.state, task.probe) == ("succeeded", name)
        assert task.embedding_seq is not None
        with bench.database.session(read_only=True) as session:
            embedding = embeddings.load(session, task.embedding_seq)
        assert embedding.space_id == probes[name].space_id
        assert embedding.provenance.probe == name
    assert service.count_embeddings() == 2


def begin_move(bench: Workbench, probe: Probe) -> str:
    """The id of the first job of the move."""
    with bench.database.session() as session:
        reindex.begin(session, bench.blobs, probe.card.name, probe.space_id)
    with bench.database.session(read_only=True) as session:
        job_id = jobs.next_in_background(session)
    assert job_id is not None
    return job_id


def test_reindexed_task_lies_in_the_new_space_as_if_it_had_been_uploaded_into_it(
    service: Service, bench: Workbench, probes: dict[str, Probe], phases: Phases
) -> None:
    _, before = service.run(labelled_zip(2))
    phases.told.clear()
    target = probes[OTHER_PROBE]
    job_id = begin_move(bench, target)
    seen = []
    phases.at("fisher", lambda: seen.append(service.read(job_id)))
    run_job(job_id, bench)
    ((job, task),) = seen
    assert (job.state, task.status, task.probe) == ("running", "ready", PROBE)
    assert task.embedding_seq == before.embedding_seq
    assert phases.names == ["intake", "features", "head", "fisher"]

    job, task = service.read(job_id)
    assert (job.state, task.status, task.probe) == ("succeeded", "ready", OTHER_PROBE)
    assert (task.n_images, task.version) == (12, 1)
    sweep_embeddings(bench.database)
    assert service.count_embeddings() == 1
    phases.told.clear()
    _, fresh = service.run(labelled_zip(2), probe=OTHER_PROBE)
    assert fresh.embedding_seq == task.embedding_seq
    assert phases.told == []


def test_same_bytes_are_reindexed_once(
    service: Service, bench: Workbench, probes: dict[str, Probe], phases: Phases
) -> None:
    service.run(labelled_zip(2))
    service.run(labelled_zip(2))
    run_job(begin_move(bench, probes[OTHER_PROBE]), bench)
    phases.told.clear()
    run_job(begin_move(bench, probes[OTHER_PROBE]), bench)
    assert phases.told == []
    sweep_embeddings(bench.database)
    assert service.count_embeddings() == 1


def test_reindexing_that_is_stopped_leaves_the_task_ready_and_goes_on_later(
    service: Service, bench: Workbench, probes: dict[str, Probe], phases: Phases
) -> None:
    _, before = service.run(labelled_zip(2))
    job_id = begin_move(bench, probes[OTHER_PROBE])
    told_to_stop: list[bool] = []
    phases.at("fisher", lambda: told_to_stop.append(True))
    with pytest.raises(HandBack):
        run_job(job_id, replace(bench, stopping=lambda: bool(told_to_stop)))
    job, task = service.read(job_id)
    assert (job.state, task.status, job.attempts) == ("queued", "ready", 0)
    assert task.embedding_seq == before.embedding_seq
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status, task.probe) == ("succeeded", "ready", OTHER_PROBE)


def test_set_that_the_new_probe_cannot_embed_stays_in_its_space(
    service: Service, bench: Workbench, probes: dict[str, Probe], phases: Phases
) -> None:
    _, before = service.run(labelled_zip(2))
    job_id = begin_move(bench, probes[OTHER_PROBE])
    bench.blobs.delete(before.archives[0].sha256)
    run_job(job_id, bench)
    job, task = service.read(job_id)
    assert (job.state, task.status, task.probe) == ("failed", "ready", PROBE)
    assert (task.problem or {})["type"] == "/problems/blob-missing"
    assert (task.embedding_seq, len(task.archives)) == (before.embedding_seq, 1)


def test_recipe_digest_changes_with_all_that_decides_the_numbers(settings: Settings) -> None:
    one, two = Blob("1" * 64, 1), Blob("2" * 64, 1)
    asked: list[tuple[tuple[Blob, ...], str, str, str, dict[str, object]]] = [
        ((one,), "auto", "space", "float32", {}),
        ((one, two), "auto", "space", "float32", {}),
        ((two, one), "auto", "space", "float32", {}),
        ((one,), "multi_label", "space", "float32", {}),
        ((one,), "auto", "other", "float32", {}),
        ((one,), "auto", "space", "bfloat16", {}),
        ((one,), "auto", "space", "float32", {"estimator": "exact"}),
        ((one,), "auto", "space", "float32", {"draws": 3}),
        ((one,), "auto", "space", "float32", {"tolerance": 0.1}),
        ((one,), "auto", "space", "float32", {"tolerance": None}),
        ((one,), "auto", "space", "float32", {"seed": 1}),
    ]
    digests = [
        recipe_digest(blobs, kind, space, precision, settings.model_copy(update=change))
        for blobs, kind, space, precision, change in asked
    ]
    assert len(set(digests)) == len(asked)
    other = settings.model_copy(update={"threads": 1, "embedding_memory_mib": 512})
    assert recipe_digest((one,), "auto", "space", "float32", other) == digests[0]
