"""The client for programs against the real API: both kinds of it go through the same tests."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from app.client import asking, operations
from app.jobs.atlas import refresh
from app.store import finetunes, predictions
from app.store.tables import Task
from task2vec import (
    AsyncTask2Vec,
    OutcomeReport,
    ProblemAnswered,
    ServerUnreachable,
    Task2Vec,
    Task2VecError,
    TaskAnswer,
)
from tests.api.conftest import ARCHIVE, Service, embedding_of
from tests.api.runs import EPOCH, ended, names_of
from tests.api.test_predictions import SINGLE
from tests.client.conftest import CUT, HALF, SOURCES, Middle, working

ROOT = Path(__file__).resolve().parent.parent.parent

Between = tuple[str, Middle]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        (tmp_path / "pets" / label / "1.png").write_bytes(label.encode())
    return tmp_path / "pets"


class Drawings:
    """A dataset as torchvision's are."""

    classes = ("dark", "light")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (8, 8), (60 * index,) * 3), index % 2


def sent(service: Service) -> list[str]:
    """What the archive of the only task holds."""
    (sha256,) = service.blobs()
    with service.resources.blobs.open(sha256) as stream, zipfile.ZipFile(stream) as archive:
        return sorted(archive.namelist())


# --- images become tasks


def test_a_folder_is_embedded_and_its_progress_told(
    service: Service, client: Any, pets: Path
) -> None:
    told: list[tuple[str, int]] = []
    with working(service):
        task = client.embed(
            pets, tags=["animals"], on_progress=lambda now: told.append((now.phase, now.done))
        )
    assert isinstance(task, TaskAnswer)
    assert (task.name, task.tags, task.status, task.counts.images) == (
        "pets",
        ["animals"],
        "ready",
        40,
    )
    assert sent(service) == ["cat/1.png", "dog/1.png"]
    assert told[0][0] == "sending"
    assert ("features", 3) in told


@pytest.mark.parametrize("kind_of_input", ["archive", "path as text", "bytes"])
def test_an_archive_is_sent_as_it_is(
    service: Service, client: Any, tmp_path: Path, kind_of_input: str
) -> None:
    path = tmp_path / "animals.zip"
    path.write_bytes(ARCHIVE)
    given = {"archive": path, "path as text": str(path), "bytes": ARCHIVE}[kind_of_input]
    task = client.embed(given, name="animals", wait=False)
    assert (task.name, task.status) == ("animals", "queued")
    (sha256,) = service.blobs()
    with service.resources.blobs.open(sha256) as stream:
        assert stream.read() == ARCHIVE


def test_a_dataset_object_is_sent_with_the_names_of_its_classes(
    service: Service, client: Any
) -> None:
    assert client.embed(Drawings(), wait=False).name == "dataset"
    assert "labels.csv" in sent(service)
    (sha256,) = service.blobs()
    with service.resources.blobs.open(sha256) as stream, zipfile.ZipFile(stream) as archive:
        assert "light" in archive.read("labels.csv").decode()


def test_a_dataset_of_another_form_is_read_as_the_command_line_reads_it(
    service: Service, client: Any, pets: Path
) -> None:
    rows = "file,animal\ncat/1.png,cat\ndog/1.png,dog\n"
    for label, colour in (("cat", "red"), ("dog", "blue")):
        Image.new("RGB", (8, 8), colour).save(pets / label / "1.png")
    (pets / "train.csv").write_text(rows)
    client.embed([pets / "train.csv"], label_column="animal", wait=False)
    assert "labels.csv" in sent(service)


def test_what_no_images_can_be_read_from_is_told_before_anything_is_sent(
    service: Service, client: Any
) -> None:
    with pytest.raises(Task2VecError, match="int is nothing that images are read from"):
        client.embed(7)
    assert service.blobs() == []


def test_an_archive_elsewhere_becomes_a_task_by_its_uri(service: Service, client: Any) -> None:
    source = f"{SOURCES}pets.zip"
    task = client.embed(source=source, tags=["animals"], label_kind="multi_label", wait=False)
    assert (task.name, task.source, task.status) == ("pets", source, "queued")
    assert (task.tags, task.label_kind) == (["animals"], "multi_label")
    assert service.blobs() == []
    with working(service):
        assert client.embed(source=source, name="others").status == "ready"
    with pytest.raises(ProblemAnswered, match="TASK2VEC_SOURCE_PREFIXES"):
        client.embed(source="s3://somebody-elses/pets.zip")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "images-or-source"),
        ({"images": ARCHIVE, "source": f"{SOURCES}pets.zip"}, "images-or-source"),
        ({"source": f"{SOURCES}pets.zip", "split": "train"}, "option-unfit"),
        ({"source": f"{SOURCES}pets.zip", "classes": ["cat"]}, "option-unfit"),
    ],
)
def test_images_and_a_source_do_not_go_together(
    service: Service, client: Any, asked: dict[str, Any], code: str
) -> None:
    with pytest.raises(Task2VecError) as raised:
        client.embed(**asked)
    assert raised.value.code == code
    assert list(client.tasks()) == []


def test_a_set_that_is_refused_raises_the_problem_of_its_job(service: Service, client: Any) -> None:
    problem = {
        "type": "/problems/too-few-images",
        "title": "Refused",
        "status": 422,
        "detail": "Of dog there is 1 image.",
        "remedy": "Add some.",
    }
    refusing: Callable[[str], None] = lambda job: service.refuse(job, problem)  # noqa: E731
    with working(service, refusing), pytest.raises(ProblemAnswered) as raised:
        client.embed(ARCHIVE)
    assert raised.value.code == "too-few-images"
    assert (raised.value.status, raised.value.title) == (422, "Refused")
    assert raised.value.problem() == problem
    assert str(raised.value) == "Of dog there is 1 image. Add some."


def test_more_images_are_a_new_version(service: Service, client: Any, pets: Path) -> None:
    task = service.ready()
    with working(service):
        assert client.add_images(task, pets).version == 2


def test_reading_a_slow_dataset_holds_up_nothing_else_in_the_loop(api: str) -> None:
    loop_went_on = threading.Event()

    class Slow(Drawings):
        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            assert loop_went_on.wait(20), "the loop stood still while images were read"
            return super().__getitem__(index)

    async def embed() -> None:
        async with AsyncTask2Vec(api) as client:
            sending = asyncio.create_task(client.embed(Slow(), wait=False))
            await asyncio.sleep(0.05)
            loop_went_on.set()
            await sending

    asyncio.run(embed())


# --- tasks


def test_a_task_is_named_by_id_by_name_and_by_what_was_answered(
    service: Service, client: Any
) -> None:
    task_id = service.ready(name="birds")
    task = client.task(task_id)
    assert client.task("birds") == client.task(task) == task
    with pytest.raises(Task2VecError, match="no task of the id or name 'dragons'"):
        client.task("dragons")


def test_the_beginning_of_an_id_will_do_where_only_one_begins_so(
    service: Service, client: Any
) -> None:
    task = client.task(service.ready(name="birds"))
    assert client.task(task.id[:6]) == task
    for too_short_or_no_id in (task.id[:3], "%", "____", "a b c d"):
        with pytest.raises(Task2VecError, match="no task of the id or name"):
            client.task(too_short_or_no_id)
    service.ready(name="fish")
    own = select(Task).where(Task.tenant == "local").order_by(Task.seq)
    with service.resources.database.session() as session:
        for row, task_id in zip(session.scalars(own), ("abcd1", "abcd2"), strict=True):
            row.id = task_id
    with pytest.raises(Task2VecError, match=r"2 ids begin with 'abcd': .*abcd1"):
        client.task("abcd")
    assert client.task("abcd1").name == "birds"


def test_a_refused_set_takes_no_name_from_one_that_is_ready(service: Service, client: Any) -> None:
    ready = service.ready(name="birds")
    problem = {"type": "/problems/x", "title": "Refused", "status": 422, "detail": "Torn."}
    service.refuse(service.send(name="birds").json()["job_id"], problem)
    service.refuse(service.send(name="fish").json()["job_id"], problem)
    assert client.task("birds").id == ready
    assert client.task("fish").status == "refused"
    assert service.ready(name="birds") != ready
    with pytest.raises(Task2VecError, match="2 tasks are called 'birds'"):
        client.task("birds")


def test_a_task_of_the_library_is_named_where_none_of_ones_own_is(
    service: Service, client: Any
) -> None:
    theirs = next(iter(client.tasks(library=True)))
    assert client.task(theirs.name).id == theirs.id
    own = service.ready(name=theirs.name)
    assert client.task(theirs.name).id == own


def test_lists_go_on_over_their_pages(
    service: Service, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_ROWS", 2)
    ids = [
        service.send(name=f"t{n}", tags=["even"] if n % 2 == 0 else []).json()["id"]
        for n in range(5)
    ]
    assert [task.id for task in client.tasks()] == ids[::-1]
    assert [task.name for task in client.tasks(tag="even")] == ["t4", "t2", "t0"]
    assert [job.task_id for job in client.jobs(task=ids[3])] == [ids[3]]


def test_a_task_is_changed_and_deleted(service: Service, client: Any) -> None:
    task = client.change_task(service.ready(), name="owls", tags=["birds"])
    assert (task.name, task.tags) == ("owls", ["birds"])
    assert client.change_task(task, tags=[]).name == "owls"
    client.delete_task(task)
    assert list(client.tasks()) == []


def test_neighbours_are_the_same_of_a_task_and_of_its_embedding(
    service: Service, client: Any
) -> None:
    tasks = [service.ready(seed) for seed in range(3)]
    embedding = client.embedding(tasks[0])
    assert np.allclose(embedding.vector, embedding_of(0).vector, rtol=1e-2)
    near = client.neighbours(tasks[0], k=2, metric="cosine")
    assert near.metric == "cosine"
    assert {row.id for row in near.neighbours} == set(tasks[1:])
    by_numbers = client.neighbours(embedding, k=3, metric="cosine").neighbours
    assert by_numbers[0].id == tasks[0]
    assert [row.id for row in by_numbers[1:]] == [row.id for row in near.neighbours]
    assert list(client.neighbours(embedding, min_classes=3).neighbours) == []
    matrix = client.distances(tasks, metric="cosine").distances
    nearest = near.neighbours[0]
    assert matrix[0][tasks.index(nearest.id)] == pytest.approx(nearest.distance)


def test_neighbours_of_images_that_are_not_kept(service: Service, client: Any, pets: Path) -> None:
    tasks = {service.ready(seed) for seed in range(2)}
    with working(service):
        near = client.neighbours_of_images(pets, k=2, metric="cosine")
    assert ({row.id for row in near.neighbours}, near.metric) == (tasks, "cosine")
    assert {task.id for task in client.tasks()} == tasks
    with working(service):
        assert len(client.neighbours_of_images(pets, k=1).neighbours) == 1


def test_what_is_known_of_a_task(service: Service, client: Any) -> None:
    task = service.ready(name="birds")
    assert [each.path for each in client.intake(task).files] == ["cat/1.png"]
    assert [each.label for each in client.classes(task).classes] == ["cat", "dog"]
    assert 'pretty_name: "birds"' in client.card(task, recipe="head_only", k=1)


def test_the_atlas_has_the_points_of_all_its_pages(
    service: Service, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_MOST_ROWS", 2)
    tasks = {service.ready(seed) for seed in range(5)}
    refresh(service.resources.database, service.resources.indexes, threads=1, stop=lambda: False)
    atlas = client.atlas()
    assert (atlas.tasks, atlas.next_cursor) == (5, None)
    assert {point.id for point in atlas.items} == tasks


# --- estimates, plans, outcomes


def test_estimates_and_plans_come_in_types(service: Service, client: Any) -> None:
    task = service.ready()
    answer = client.estimates(task, k=2, device="cpu-2core", recipe="head_only")
    assert (answer.recipe, len(answer.estimates)) == ("head_only", 2)
    first = answer.estimates[0]
    assert first.rank == 1
    assert first.seconds.low <= first.seconds.typical <= first.seconds.high
    assert client.estimates(task, budget_seconds=0).estimates == []
    plan = client.plan(task, target=0.9)
    assert (plan.task, plan.target) == (task, 0.9)
    assert client.estimator().outcomes == 0


def test_estimates_and_plans_are_of_the_candidates_that_somebody_would_take(
    service: Service, client: Any
) -> None:
    task, cards = service.ready(), client.candidates()
    for number, card in enumerate(cards[:2]):
        update = {"name": f"mine-{number}", "licence": f"licence {number}"}
        client.add_candidate(card.model_copy(update=update))

    def named(**asked: Any) -> set[str]:
        return {row.candidate for row in client.estimates(task, **asked).estimates}

    assert named(licence=["licence 0", "licence 1"]) == {"mine-0", "mine-1"}
    assert named(licence="licence 1") == {"mine-1"}
    everything = client.plan(task).unknown
    assert everything == len(cards) + 2
    assert client.plan(task, licence=["licence 0"]).unknown == 1
    fewest = min(card.parameters for card in cards)
    assert 0 < client.plan(task, max_parameters=fewest).unknown < everything
    assert client.plan(task, max_inference_seconds=1e-9).unknown == 0


def test_an_outcome_is_reported_once_however_often(service: Service, client: Any) -> None:
    task, model = service.ready(), names_of(service)[0]
    report = OutcomeReport(
        task=task, model=model, metric="accuracy", value=0.75, recipe="full", device="cpu-2core"
    )
    first, again = client.report_outcome(report), client.report_outcome(report)
    assert (first.id, first.value) == (again.id, 0.75)
    assert first.forecast is not None
    assert [outcome.id for outcome in client.outcomes(task=task)] == [first.id]
    by_name = report.model_copy(update={"task": client.task(task).name})
    assert client.report_outcome(by_name).id == first.id


def test_an_outcome_in_quarantine_is_released(service: Service, client: Any) -> None:
    asked = {"task": service.ready(), "model": names_of(service)[0], "metric": "accuracy"}
    asked |= {"recipe": "full", "device": "cpu-2core"}
    for number in range(20):
        client.report_outcome(OutcomeReport(**asked, value=0.5 + number / 100, seconds=60))
    held = client.report_outcome(OutcomeReport(**asked, value=0.8, seconds=9e6))
    assert held.quarantine is not None
    assert [each.id for each in client.outcomes(quarantined=True)] == [held.id]
    assert client.release_outcome(held.id).quarantine is None
    assert client.outcome(held.id).quarantine is None


def test_a_table_of_outcomes_is_imported(service: Service, client: Any, tmp_path: Path) -> None:
    model = names_of(service)[0]
    table = tmp_path / "runs.csv"
    rows = f"task,model,metric,value\na,{model},accuracy,0.7\na,{model},accuracy,7\n"
    table.write_text(rows)
    answer = client.import_outcomes(table)
    assert (answer.added, answer.refused, answer.errors[0].column) == (1, 1, "value")


# --- runs


def test_a_run_is_waited_for_and_its_model_saved(
    service: Service, client: Any, tmp_path: Path
) -> None:
    task, candidate = service.ready(name="birds"), names_of(service)[0]
    with working(service):
        run = client.finetune("birds", candidate, seed=3)
    assert (run.state, run.asked["seed"], run.curve[0]["accuracy"]) == ("succeeded", 3, 0.5)
    assert [each.id for each in client.finetune_runs(task=task)] == [run.id]
    with pytest.raises(ProblemAnswered, match=r"config\.json"):  # this one has a model alone
        client.save_model(run.id, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"weights"
    assert client.register(run.id, "birds-of-mine").name == "birds-of-mine"
    assert "birds-of-mine" in [card.name for card in client.candidates()]


@pytest.mark.parametrize("failures", [[], [HALF], [CUT, HALF]])
def test_the_learning_curve_is_told_epoch_by_epoch_and_each_once(
    service: Service, kind: type[Any], middle: Between, failures: list[str]
) -> None:
    url, between = middle
    run, epochs = ended(service, service.ready()), [EPOCH | {"number": n} for n in range(1, 7)]
    with service.resources.database.session() as session:
        finetunes.get(session, "local", run).curve = epochs
    between.failures = failures
    with kind(url) as client:
        assert list(client.curve(run)) == client.finetune_run(run).curve == epochs


def test_predictions_of_all_pages_are_put_together(
    service: Service, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_MOST_ROWS", 1)
    run = ended(service, service.ready())

    def classify(job_id: str) -> None:
        token = service.start(job_id)
        with service.resources.database.session() as session:
            predictions.finish(session, job_id, token, SINGLE)

    with working(service, classify):
        answer = client.predict(run, ARCHIVE, k=2)
    assert [(image.name, image.class_) for image in answer.images] == [
        ("a.png", "dog"),
        ("=b.png", "cat"),
    ]
    assert [file.name for file in answer.refused] == ["c.txt"]
    assert answer.next_cursor is None


def test_scores_are_asked_for_and_read(service: Service, client: Any) -> None:
    task, candidate = service.ready(), names_of(service)[0]
    scores = client.score(task, [candidate], wait=False)
    assert [(row.candidate, row.state) for row in scores.scores] == [(candidate, "pending")]


# --- jobs


def test_a_job_is_followed_to_its_end(service: Service, client: Any) -> None:
    task = client.embed(ARCHIVE, wait=False)
    with working(service):
        told = list(client.follow(task))
    assert told[-1].state == "succeeded"
    assert client.job(task).state == "succeeded"
    assert client.wait(task.job_id).id == task.job_id


def test_a_job_that_was_taken_back_raises_that(client: Any) -> None:
    task = client.embed(ARCHIVE, wait=False)
    assert client.cancel(task).state == "cancelled"
    with pytest.raises(Task2VecError) as raised:
        client.wait(task)
    assert (raised.value.status, raised.value.code) == (499, "job-cancelled")


def test_waiting_ends_when_it_was_to_and_the_job_goes_on(client: Any) -> None:
    task = client.embed(ARCHIVE, wait=False)
    with pytest.raises(Task2VecError) as raised:
        client.wait(task, timeout_seconds=0.3)
    assert raised.value.code == "job-unfinished"
    assert client.job(task).state == "queued"


# --- catalogue


def test_cards_come_as_the_catalogue_has_them(service: Service, client: Any) -> None:
    assert set(names_of(service)) <= {card.name for card in client.candidates()}
    assert "cpu-2core" in {card.name for card in client.devices()}
    assert "full" in {card.name for card in client.recipes()}
    assert {probe.pinned for probe in client.probes()} == {True, False}
    assert client.usage().quotas["tasks"].used == 0


# --- what goes wrong on the way


def test_the_problem_of_a_refused_request_names_the_fields(service: Service, client: Any) -> None:
    with pytest.raises(Task2VecError) as raised:
        client.finetune(service.ready(), names_of(service)[0], target=2)
    assert raised.value.status == 422
    assert "target" in str(raised.value)


@pytest.mark.parametrize("failure", [CUT, HALF, (503, {"Retry-After": "1"}), (429, {})])
def test_a_post_that_failed_is_repeated_under_its_key_and_done_once(
    service: Service, kind: type[Any], middle: Between, failure: Any
) -> None:
    url, between = middle
    between.failures = [failure, failure]
    with kind(url) as client:
        task = client.embed(ARCHIVE, wait=False)
    posts = [key for method, _, key in between.seen if method == "POST"]
    assert len(posts) == 3
    assert len(set(posts)) == 1
    assert posts[0]
    assert [row["id"] for row in service.client.get("/v1/tasks").json()["items"]] == [task.id]


def test_two_posts_have_two_keys(service: Service, kind: type[Any], middle: Between) -> None:
    url, between = middle
    tasks = [service.ready(seed) for seed in (1, 2)]
    with kind(url) as client:
        for _ in range(2):
            client.distances(tasks)
    keys = [key for method, _, key in between.seen if method == "POST"]
    assert len(set(keys)) == 2


def test_a_deletion_whose_answer_was_lost_is_done(
    service: Service, kind: type[Any], middle: Between
) -> None:
    url, between = middle
    task = service.ready()
    with kind(url) as client:
        between.failures = [None, CUT]  # the look at the task, then the deletion
        client.delete_task(task)
        assert [method for method, *_ in between.seen] == ["GET", "DELETE", "DELETE"]
        with pytest.raises(Task2VecError):
            client.delete_task(task)


def test_nobody_comes_again_before_the_time_that_was_told(kind: type[Any], middle: Between) -> None:
    url, between = middle
    between.closed_seconds = 1
    with kind(url, attempts=2) as client:
        assert client.devices()
    assert len(between.seen) == 2


def test_a_pause_beyond_the_deadline_is_not_begun(kind: type[Any], middle: Between) -> None:
    url, between = middle
    between.failures = [(503, {"Retry-After": "3600"})]
    with kind(url, deadline_seconds=5) as client, pytest.raises(ProblemAnswered) as raised:
        client.devices()
    assert raised.value.status == 503
    assert len(between.seen) == 1


def test_repetition_ends_after_the_attempts_that_were_allowed(
    kind: type[Any], middle: Between
) -> None:
    url, between = middle
    between.failures = [CUT] * 9
    with kind(url, attempts=2) as client, pytest.raises(ServerUnreachable, match="No answer"):
        client.devices()
    assert len(between.seen) == 2


def test_what_a_newer_server_adds_to_an_answer_is_passed_over(
    service: Service, kind: type[Any], middle: Between
) -> None:
    url, between = middle

    def extended(answer: Any) -> Any:
        if isinstance(answer, dict):
            return {name: extended(value) for name, value in answer.items()} | {"novelty": "new"}
        return [extended(each) for each in answer] if isinstance(answer, list) else answer

    task = service.ready()
    between.change = extended
    with kind(url) as client:
        assert client.task(task).id == task
        assert client.estimates(task).estimates
        assert [each.id for each in client.tasks()] == [task]
        assert {card.name for card in client.candidates()} >= set(names_of(service))


def test_an_answer_that_lacks_what_the_client_knows_is_told_of(
    service: Service, kind: type[Any], middle: Between
) -> None:
    url, between = middle
    task = service.ready()
    between.change = lambda answer: {**answer, "status": "dreaming"}
    with kind(url) as client, pytest.raises(Task2VecError, match=r"no TaskAnswer .*status") as told:
        client.task(task)
    assert told.value.code == "answer-unfit"


def test_the_address_and_the_key_are_those_of_the_environment(
    kind: type[Any], api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASK2VEC_SERVER", api)
    monkeypatch.setenv("TASK2VEC_KEY", "t2v_nobody_knows")
    with kind() as client:
        assert list(client.tasks()) == []


# --- as the documentation has it


def test_the_code_of_the_documentation_runs(
    service: Service, api: str, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.setenv("TASK2VEC_SERVER", api)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (pets.parent / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(pets.parent)
    names: dict[str, Any] = {"dataset": Drawings()}
    with working(service):
        exec("\n".join(blocks), names)
    assert names["drawings"].name == "drawings"
    assert names["near"].neighbours[0].name == "drawings"
    outcome, seconds = names["outcome"], names["outcome"].forecast["seconds"]
    logged = names["mlflow"].get_run(names["run"].info.run_id).data
    first = names["estimates"].estimates[0]
    assert logged.tags["task2vec.candidate"] == first.candidate
    assert logged.tags["task2vec.outcome"] == outcome.id
    assert logged.metrics["task2vec.estimate.seconds.high"] == first.seconds.high
    assert logged.metrics["task2vec.outcome.accuracy"] == outcome.value == 0.93
    assert logged.metrics["task2vec.miss.seconds"] == 41.0 - seconds["typical"]
    assert logged.metrics["task2vec.inside.seconds"] == (seconds["low"] <= 41.0 <= seconds["high"])


# --- one surface


def operations_of(kind: type[Any]) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(value)
        for name, value in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    awaited, plain = operations_of(AsyncTask2Vec), operations_of(Task2Vec)
    assert awaited == plain
    assert all(inspect.getdoc(getattr(Task2Vec, name)) for name in ("embed", "plan", "wait"))
    assert not any(inspect.iscoroutinefunction(getattr(Task2Vec, name)) for name in plain)


def test_the_plain_client_works_beside_a_running_loop(service: Service, api: str) -> None:
    service.ready()

    async def notebook() -> int:
        with Task2Vec(api) as client:
            return len(list(client.tasks()))

    assert asyncio.run(notebook()) == 1


def test_importing_the_client_brings_nothing_of_a_service() -> None:
    heavy = [
        "torch",
        "timm",
        "sklearn",
        "fastapi",
        "sqlalchemy",
        "faiss",
        "scipy",
        "polars",
        "typer",
    ]
    program = f"import sys, task2vec; print([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.stdout.strip() == "[]", told.stderr
