"""What programs ask of the service, in types: the bodies and answers are the service's own.

A task is named by its id, by a name that only one of your tasks has, or by an answer that is about
it. Fields that a newer service adds to an answer are passed over.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from app.api.schemas import (
    Accepted,
    AtlasAnswer,
    ClassesAnswer,
    DistancesAnswer,
    EstimatesAnswer,
    EstimatorAnswer,
    FinetuneAccepted,
    FinetuneAnswer,
    IntakeAnswer,
    JobAnswer,
    JobProgress,
    JobState,
    LabelKindAsked,
    NeighboursAnswer,
    OutcomeAnswer,
    OutcomeReport,
    OutcomesImported,
    PlanAnswer,
    PredictionAccepted,
    PredictionAnswer,
    QueryAccepted,
    ScoresAnswer,
    TaskAnswer,
    TaskRow,
    TaskStatus,
)
from app.catalogue import CandidateCard
from app.client.account import Account
from app.client.asking import OnProgress, TaskRef, read, said, telling
from app.client.catalogue import Catalogue
from app.client.direct import send_task
from app.client.images import ArchiveBytes, Images, archive_of, require_images_or_source
from app.client.problems import ProblemAnswered
from app.client.tables import read_table
from app.embedding.dataset import LabelKind
from app.embedding.metric_names import MetricName
from app.embedding.vector import TaskEmbedding
from app.errors import Cancelled, Conflict, Task2VecError, Unavailable
from app.files import whole
from app.inputs.pictures import Asked
from app.priorities import Priority
from app.training.names import FILES

_MOST_ROWS = 10_000

log = logging.getLogger("task2vec")


class Working(Protocol):
    """An answer that a job stands behind."""

    @property
    def job_id(self) -> str | None: ...


class Operations(Catalogue, Account):
    # --- tasks

    async def embed(
        self,
        images: Images | None = None,
        *,
        source: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        label_kind: LabelKindAsked = "auto",
        probe: str | None = None,
        priority: Priority | None = None,
        classes: Sequence[str] | None = None,
        form: str | None = None,
        split: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        callback_url: str | None = None,
        wait: bool = True,
        on_progress: OnProgress | None = None,
    ) -> TaskAnswer:
        """Makes a task of labelled images, and waits for its embedding.

        `images` is a folder, an archive, a file of a dataset or several, `hf://...`, the bytes of
        an archive, or a dataset object of (image, label) pairs, whose label numbers stand for
        `classes`. `form`, `split` and the columns say what a path leaves open. Instead of `images`
        the `source` of an archive may be named, a URI that the service fetches, if the operator
        allows it. `callback_url` is called when the job ends, if the operator allows that address.
        """
        asked = Asked(form, split, image_column, label_column, label_kind)
        metadata = {
            "name": name,
            "tags": list(tags),
            "label_kind": label_kind,
            "probe": probe,
            "priority": priority,
            "callback_url": callback_url,
            "source": source,
        }
        require_images_or_source(images, source, asked, classes)
        if images is None:
            accepted = await self._post(Accepted, "/v1/tasks", said(metadata))
        else:
            archive = await self._wire.work(
                partial(archive_of, images, asked, name=name, classes=classes)
            )
            sent = await send_task(
                self._wire,
                archive,
                said(metadata),
                on_progress=telling(archive, on_progress),
                on_detour=log.warning,
            )
            accepted = read(Accepted, sent)
        if wait:
            await self.wait(accepted, on_progress=on_progress)
        return await self.task(accepted)

    async def add_images(
        self,
        task: TaskRef,
        images: Images,
        *,
        classes: Sequence[str] | None = None,
        wait: bool = True,
        on_progress: OnProgress | None = None,
    ) -> TaskAnswer:
        """More images of a task: a new version, embedded again."""
        path = f"{await self._task_path(task)}/images"
        archive = await self._wire.work(
            partial(archive_of, images, Asked(), name=None, classes=classes)
        )
        accepted = await self._upload(Accepted, path, archive, {}, on_progress)
        if wait:
            await self.wait(accepted, on_progress=on_progress)
        return await self.task(accepted)

    async def task(self, task: TaskRef) -> TaskAnswer:
        return await self._get(TaskAnswer, await self._task_path(task))

    async def tasks(
        self,
        *,
        status: TaskStatus | None = None,
        tag: str | None = None,
        name: str | None = None,
        library: bool = False,
    ) -> AsyncIterator[TaskRow]:
        """Newest first; `name` is a part of theirs."""
        asked = {"status": status, "tag": tag, "q": name, "library": library or None}
        async for row in self._rows(TaskRow, "/v1/tasks", **asked):
            yield row

    async def change_task(
        self, task: TaskRef, *, name: str | None = None, tags: Sequence[str] | None = None
    ) -> TaskAnswer:
        """`tags` replace those it had."""
        changes = {"name": name, "tags": None if tags is None else list(tags)}
        path = await self._task_path(task)
        return await self._ask(TaskAnswer, "PATCH", path, json=said(changes))

    async def delete_task(self, task: TaskRef) -> None:
        await self._wire.delete(await self._task_path(task))

    async def intake(self, task: TaskRef) -> IntakeAnswer:
        """For every file: used, or skipped and why."""
        return await self._get(IntakeAnswer, f"{await self._task_path(task)}/intake")

    async def classes(self, task: TaskRef) -> ClassesAnswer:
        """How many images each class has."""
        return await self._get(ClassesAnswer, f"{await self._task_path(task)}/classes")

    async def card(
        self,
        task: TaskRef,
        *,
        device: str | None = None,
        recipe: str | None = None,
        k: int | None = None,
    ) -> str:
        """What is known of the task, in Markdown, for the card of its dataset."""
        path = f"{await self._task_path(task)}/card"
        told = await self._wire.download(path, device=device, recipe=recipe, k=k)
        return told.decode()

    async def embedding(self, task: TaskRef) -> TaskEmbedding:
        """In arrays of numpy."""
        path = f"{await self._task_path(task)}/embedding"
        return TaskEmbedding.from_npz(await self._wire.download(path, format="npz"))

    # --- what is near

    async def neighbours(
        self,
        task: TaskRef | TaskEmbedding,
        *,
        k: int = 10,
        metric: MetricName | None = None,
        tag: str | None = None,
        label_kind: LabelKind | None = None,
        min_classes: int | None = None,
        max_classes: int | None = None,
    ) -> NeighboursAnswer:
        """The nearest tasks by exact distance, of a task or of an embedding made elsewhere."""
        asked = {"k": k, "metric": metric, "tag": tag}
        among = {
            "label_kind": label_kind,
            "min_classes": min_classes,
            "max_classes": max_classes,
        }
        if not isinstance(task, TaskEmbedding):
            path = f"{await self._task_path(task)}/neighbours"
            return await self._get(NeighboursAnswer, path, **asked, **among)
        body = {
            "vector": task.vector.tolist(),
            "domain": task.domain.tolist(),
            "discriminants": task.discriminants.tolist(),
            "space_id": task.space_id,
            **said(asked),
            "among": said(among),
        }
        return await self._post(NeighboursAnswer, "/v1/neighbours", body)

    async def neighbours_of_images(
        self,
        images: Images,
        *,
        label_kind: LabelKindAsked = "auto",
        probe: str | None = None,
        classes: Sequence[str] | None = None,
        k: int = 10,
        metric: MetricName | None = None,
        tag: str | None = None,
        among_label_kind: LabelKind | None = None,
        min_classes: int | None = None,
        max_classes: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> NeighboursAnswer:
        """Of labelled images that are not kept: they become no task of yours."""
        archive = await self._wire.work(
            partial(archive_of, images, Asked(label_kind=label_kind), name=None, classes=classes)
        )
        narrowed = {"k": k, "metric": metric, "tag": tag}
        among = {
            "label_kind": among_label_kind,
            "min_classes": min_classes,
            "max_classes": max_classes,
        }
        metadata = {"label_kind": label_kind, "probe": probe, **narrowed, "among": said(among)}
        accepted = await self._upload(
            QueryAccepted, "/v1/neighbours", archive, said(metadata), on_progress
        )
        await self.wait(accepted, on_progress=on_progress)
        # The job's own address asks the question again; its result is the answer.
        answered = await self._get(JobAnswer, accepted.links["self"])
        if answered.result is None:
            raise Unavailable(
                "answer-unfit",
                f"Job {accepted.job_id} has succeeded without an answer.",
                "Ask again: images that are not kept are gone after a day.",
            )
        return answered.result

    async def distances(
        self, tasks: Sequence[TaskRef], *, metric: MetricName | None = None
    ) -> DistancesAnswer:
        """Row: source task, column: target task, in the order given."""
        body = {"tasks": [await self._task_id(task) for task in tasks], "metric": metric}
        return await self._post(DistancesAnswer, "/v1/distances", body)

    async def atlas(
        self, *, tag: str | None = None, cluster: int | None = None, space_id: str | None = None
    ) -> AtlasAnswer:
        """The map of your tasks and the library's, with all its points."""
        asked = {"tag": tag, "cluster": cluster, "space_id": space_id, "limit": _MOST_ROWS}
        answer = await self._get(AtlasAnswer, "/v1/atlas", **asked)
        items, cursor = answer.items, answer.next_cursor
        while cursor is not None:
            more = await self._get(AtlasAnswer, "/v1/atlas", **asked, cursor=cursor)
            items, cursor = items + more.items, more.next_cursor
        return answer.model_copy(update={"items": items, "next_cursor": None})

    # --- which model to start from

    async def estimates(
        self,
        task: TaskRef,
        *,
        device: str | None = None,
        recipe: str | None = None,
        k: int | None = None,
        budget_usd: float | None = None,
        budget_seconds: float | None = None,
        licence: Sequence[str] | None = None,
        max_parameters: int | None = None,
        max_inference_seconds: float | None = None,
    ) -> EstimatesAnswer:
        """One row per candidate, best first, of those that surely stay within the budgets.

        `licence` is one or several, as cards have them.
        """
        return await self._get(
            EstimatesAnswer,
            f"{await self._task_path(task)}/estimates",
            device=device,
            recipe=recipe,
            k=k,
            budget_usd=budget_usd,
            budget_seconds=budget_seconds,
            licence=licence,
            max_parameters=max_parameters,
            max_inference_seconds=max_inference_seconds,
        )

    async def plan(
        self,
        task: TaskRef,
        *,
        target: float | None = None,
        tries: int = 3,
        device: str | None = None,
        recipe: str | None = None,
        budget_usd: float | None = None,
        budget_seconds: float | None = None,
        licence: Sequence[str] | None = None,
        max_parameters: int | None = None,
        max_inference_seconds: float | None = None,
    ) -> PlanAnswer:
        """Which candidates to try, in which order; the budgets are of all tries together."""
        return await self._get(
            PlanAnswer,
            f"{await self._task_path(task)}/plan",
            target=target,
            tries=tries,
            device=device,
            recipe=recipe,
            budget_usd=budget_usd,
            budget_seconds=budget_seconds,
            licence=licence,
            max_parameters=max_parameters,
            max_inference_seconds=max_inference_seconds,
        )

    async def score(
        self,
        task: TaskRef,
        candidates: Sequence[str] | None = None,
        *,
        callback_url: str | None = None,
        wait: bool = True,
        on_progress: OnProgress | None = None,
    ) -> ScoresAnswer:
        """Looks at the task's images through candidates; what these tell enters the estimates."""
        path = f"{await self._task_path(task)}/scores"
        asked = {
            "candidates": None if candidates is None else list(candidates),
            "callback_url": callback_url,
        }
        await self._wire.post(path, said(asked))
        scores = await self._get(ScoresAnswer, path)
        pending = [row.job_id for row in scores.scores if row.state == "pending"]
        if not (wait and pending):
            return scores
        for job_id in dict.fromkeys(pending):
            await self.wait(job_id, on_progress=on_progress)
        return await self._get(ScoresAnswer, path)

    async def estimator(self) -> EstimatorAnswer:
        """What estimates rest on, and how good they are."""
        return await self._get(EstimatorAnswer, "/v1/estimator")

    # --- what came of it

    async def report_outcome(self, report: OutcomeReport) -> OutcomeAnswer:
        """One fine-tuning run as it really went; reported again it is the same outcome.

        The report names its task like any method does.
        """
        body = report.model_dump(mode="json", exclude_none=True)
        body["task"] = await self._task_id(report.task)
        return await self._post(OutcomeAnswer, "/v1/outcomes", body)

    async def import_outcomes(self, table: str | Path) -> OutcomesImported:
        """The runs of a CSV or Parquet file; good rows are added, each once, and bad ones told."""
        content, media_type = await self._wire.work(partial(read_table, Path(table)))
        sent = await self._wire.post_bytes("/v1/outcomes:import", content, media_type)
        return read(OutcomesImported, sent)

    async def outcomes(
        self, *, task: str | None = None, model: str | None = None, quarantined: bool = False
    ) -> AsyncIterator[OutcomeAnswer]:
        """Newest first."""
        asked = {"task": task, "model": model, "quarantined": quarantined or None}
        async for row in self._rows(OutcomeAnswer, "/v1/outcomes", **asked):
            yield row

    async def outcome(self, outcome_id: str) -> OutcomeAnswer:
        return await self._get(OutcomeAnswer, _outcome_path(outcome_id))

    async def release_outcome(self, outcome_id: str) -> OutcomeAnswer:
        """Of one in quarantine: it is right as it stands, and estimates learn from it."""
        path = _outcome_path(outcome_id)
        return await self._ask(OutcomeAnswer, "PATCH", path, json={"quarantined": False})

    # --- training on the service

    async def finetune(
        self,
        task: TaskRef,
        candidate: str,
        *,
        recipe: str | None = None,
        device: str | None = None,
        target: float | None = None,
        patience: int | None = None,
        budget_seconds: float | None = None,
        budget_usd: float | None = None,
        trace_every: int | None = None,
        seed: int | None = None,
        callback_url: str | None = None,
        wait: bool = True,
        on_progress: OnProgress | None = None,
    ) -> FinetuneAnswer:
        """Trains a candidate on the images of a task; what it gave and took becomes an outcome."""
        asked = {
            "candidate": candidate,
            "recipe": recipe,
            "device": device,
            "target": target,
            "patience": patience,
            "budget_seconds": budget_seconds,
            "budget_usd": budget_usd,
            "trace_every": trace_every,
            "seed": seed,
            "callback_url": callback_url,
        }
        path = f"{await self._task_path(task)}/finetunes"
        accepted = await self._post(FinetuneAccepted, path, said(asked))
        for warning in accepted.warnings:
            log.warning(warning)
        if wait:
            await self.wait(accepted, on_progress=on_progress)
        return await self.finetune_run(accepted.id)

    async def finetune_run(self, run: str) -> FinetuneAnswer:
        return await self._get(FinetuneAnswer, _run_path(run))

    async def finetune_runs(self, *, task: TaskRef | None = None) -> AsyncIterator[FinetuneAnswer]:
        """Newest first, each with its last epoch alone."""
        task_id = None if task is None else await self._task_id(task)
        async for row in self._rows(FinetuneAnswer, "/v1/finetunes", task_id=task_id):
            yield row

    async def curve(
        self, run: str, *, timeout_seconds: float | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """The epochs of a run as they are over, up to its end, whatever that is."""
        told = 0
        path = f"{_run_path(run)}/events"
        async for event in self._wire.stream(path, f"Run {run}", timeout_seconds=timeout_seconds):
            if event.get("number", 0) > told:  # a stream that is taken up again begins anew
                told = event["number"]
                yield event

    async def save_model(self, run: str, folder: str | Path) -> None:
        """The model of a run, with its configuration and its card."""
        target = Path(folder)
        await self._wire.work(partial(target.mkdir, parents=True, exist_ok=True))
        for file, name in FILES.items():
            content = await self._wire.download(f"{_run_path(run)}/{file}")
            await self._wire.work(partial(_save, target / name, content))

    async def register(self, run: str, name: str | None = None) -> CandidateCard:
        """Makes the model of a run a candidate of yours."""
        path = f"{_run_path(run)}/candidate"
        return await self._post(CandidateCard, path, said({"name": name}))

    async def predict(
        self,
        run: str,
        images: str | Path | bytes,
        *,
        k: int = 5,
        threshold: float = 0.5,
        callback_url: str | None = None,
        wait: bool = True,
        on_progress: OnProgress | None = None,
    ) -> PredictionAnswer:
        """Classifies images, without labels, by the model of a run: a folder, archive or file."""
        archive = ArchiveBytes("images", images) if isinstance(images, bytes) else Path(images)
        path = f"{_run_path(run)}/predictions"
        metadata = said({"k": k, "threshold": threshold, "callback_url": callback_url})
        accepted = await self._upload(PredictionAccepted, path, archive, metadata, on_progress)
        if wait:
            await self.wait(accepted, on_progress=on_progress)
        return await self.prediction(accepted.id)

    async def prediction(self, prediction: str) -> PredictionAnswer:
        """With all images, whose pages are put together."""
        path = f"/v1/predictions/{quote(prediction, safe='')}"
        answer = await self._get(PredictionAnswer, path, limit=_MOST_ROWS)
        images, refused, cursor = answer.images, answer.refused, answer.next_cursor
        while cursor is not None:
            more = await self._get(PredictionAnswer, path, limit=_MOST_ROWS, cursor=cursor)
            images, refused, cursor = images + more.images, refused + more.refused, more.next_cursor
        whole = {"images": images, "refused": refused, "next_cursor": None}
        return answer.model_copy(update=whole)

    # --- jobs

    async def job(self, job: str | Working) -> JobAnswer:
        return await self._get(JobAnswer, f"/v1/jobs/{quote(_job_id(job), safe='')}")

    async def jobs(
        self, *, state: JobState | None = None, task: TaskRef | None = None
    ) -> AsyncIterator[JobAnswer]:
        """Newest first."""
        task_id = None if task is None else await self._task_id(task)
        async for row in self._rows(JobAnswer, "/v1/jobs", state=state, task_id=task_id):
            yield row

    async def follow(
        self, job: str | Working, *, timeout_seconds: float | None = None
    ) -> AsyncIterator[JobProgress]:
        """How far a job is, whenever that changes, up to its end, whatever that is."""
        told = self._wire.follow(_job_id(job), timeout_seconds=timeout_seconds)
        async for progress in told:
            yield read(JobProgress, progress)

    async def wait(
        self,
        job: str | Working,
        *,
        timeout_seconds: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> JobAnswer:
        """The job once it has succeeded; ended otherwise, it raises what went wrong."""
        async for progress in self.follow(job, timeout_seconds=timeout_seconds):
            if on_progress is not None:
                on_progress(progress)
        ended = await self.job(job)
        if ended.state != "succeeded":
            raise _failure(ended)
        return ended

    async def cancel(self, job: str | Working) -> JobAnswer:
        """One that is running stops within a batch."""
        path = f"/v1/jobs/{quote(_job_id(job), safe='')}"
        return await self._ask(JobAnswer, "DELETE", path)


def _save(path: Path, content: bytes) -> None:
    with whole(path) as part:
        part.write_bytes(content)


def _outcome_path(outcome_id: str) -> str:
    return f"/v1/outcomes/{quote(outcome_id, safe='')}"


def _run_path(run: str) -> str:
    return f"/v1/finetunes/{quote(run, safe='')}"


def _job_id(job: str | Working) -> str:
    found = job if isinstance(job, str) else job.job_id
    if found is None:
        raise Conflict("no-job", "No job stands behind this.", "Give the id of a job.")
    return found


def _failure(job: JobAnswer) -> Task2VecError:
    if job.problem is not None:
        return ProblemAnswered(job.problem)
    if job.state == "cancelled":
        return Cancelled("job-cancelled", f"Job {job.id} was cancelled.", "Ask for it again.")
    return Conflict(f"job-{job.state}", f"Job {job.id} is {job.state}.", "See the server's log.")
