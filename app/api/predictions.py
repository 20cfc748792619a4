"""What a run's model makes of new images: asked for with them, answered by a job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response

from app.api import formats
from app.api.auth import Tenant
from app.api.callbacks import ask_callback
from app.api.finetunes import FinetuneId, require_file
from app.api.neighbours import TableFormat
from app.api.problems import problems
from app.api.quotas import require_room
from app.api.repeats import Post
from app.api.resources import Reached, Reading, Writing
from app.api.schemas import (
    ClassProbability,
    PredictedImage,
    PredictionAccepted,
    PredictionAnswer,
    PredictionAsked,
    RefusedFile,
)
from app.api.tasks import Cursor
from app.api.uploads import Upload, forget_unneeded, upload, upload_body
from app.embedding.unlabelled import inspect_images
from app.errors import Conflict
from app.store import archives, finetunes
from app.store import predictions as store
from app.store.idempotency import Answer
from app.store.predictions import Listed, Page
from app.store.tables import Prediction

router = APIRouter(tags=["fine-tuning"])
uploads = APIRouter(tags=["fine-tuning"])

FileLimit = Annotated[int, Query(ge=1, le=10_000)]
PredictionId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


@uploads.post(
    "/finetunes/{finetune_id}/predictions",
    status_code=202,
    response_model=PredictionAccepted,
    responses=problems(404, 409, 413, 415, 503),
    openapi_extra=upload_body(
        PredictionAsked, archive="zip, tar, tar.gz or tar.zst of images, or one image"
    ),
)
def post_prediction(
    finetune_id: FinetuneId,
    reached: Reached,
    tenant: Tenant,
    post: Post,
    sent: Annotated[
        Upload[PredictionAsked], upload(PredictionAsked, inspect=inspect_images, is_stored=False)
    ],
    session: Writing,
    after_commit: BackgroundTasks,
) -> Response:
    """The images are kept until the job ends, its answer for a day from then."""
    images, asked = sent.archive, sent.content
    assert images is not None  # noqa: S101

    def accept() -> Answer:
        run = finetunes.get(session, tenant, finetune_id)
        require_file(reached, run, "model")
        require_room(reached, session, tenant)
        row = store.create(
            session, run, images, _name_of(sent.filename), k=asked.k, threshold=asked.threshold
        )
        archives.require_kept(session, reached.blobs, images.sha256)
        ask_callback(reached, session, row.job, asked.callback_url)
        links = _links(row)
        body = PredictionAccepted(id=row.id, job_id=row.job.id, links=links)
        return Answer(202, body.model_dump(), links["self"])

    if post.key is not None:  # a repetition may bring them when the job has ended
        after_commit.add_task(forget_unneeded, reached, [images.sha256])
    return post.once(session, accept, sent.fingerprint)


@router.get(
    "/predictions/{prediction_id}",
    response_model=PredictionAnswer,
    responses={200: formats.also("csv"), **problems(404, 409)},
)
def get_prediction(
    request: Request,
    prediction_id: PredictionId,
    tenant: Tenant,
    session: Reading,
    limit: FileLimit = 1_000,
    cursor: Cursor = None,
    wanted: TableFormat = None,
) -> PredictionAnswer | Response:
    """A page of files at a time; as a table all images, and only once it has succeeded."""
    row = store.get(session, tenant, prediction_id)
    if formats.choose(request, wanted, ("json", "csv")) == "json":
        return _answer(row, store.page(row, limit=limit, cursor=cursor))
    if row.result is None:
        raise Conflict(
            "prediction-not-ended",
            f"The prediction {row.id!r} is {row.job.state}: there is no table of it.",
            "Wait for its job to end, or read the problem that it names as JSON.",
        )
    return _csv(row.result)


def _name_of(filename: str) -> str:
    """What a single image is called in its answer."""
    name = PurePosixPath(filename.replace("\\", "/")).name
    return "".join(letter for letter in name if letter.isprintable())[:200].strip() or "image"


def _links(row: Prediction) -> dict[str, str]:
    job = f"/v1/jobs/{row.job.id}"
    return {
        "self": f"/v1/predictions/{row.id}",
        "finetune": f"/v1/finetunes/{row.finetune.id}",
        "job": job,
        "events": f"{job}/events",
    }


def _answer(row: Prediction, page: Page) -> PredictionAnswer:
    result = row.result or {"label_kind": None, "classes": []}
    kind, classes = result["label_kind"], result["classes"]
    return PredictionAnswer(
        id=row.id,
        finetune_id=row.finetune.id,
        state=row.job.state,
        problem=row.job.problem,
        k=row.k,
        threshold=row.threshold,
        label_kind=kind,
        probabilities=kind and ("sigmoid" if kind == "multi_label" else "softmax"),
        calibration_error=(row.finetune.result or {}).get("verdict", {}).get("calibration"),
        classes=classes,
        images=[_image(name, listed, classes) for name, listed in page.images],
        refused=[RefusedFile(name=name, reason=why) for name, why in page.refused],
        next_cursor=page.next_cursor,
        job_id=row.job.id,
        created_at=row.created_at,
        finished_at=row.job.finished_at,
        links=_links(row),
    )


def _image(name: str, listed: Listed, classes: list[str]) -> PredictedImage:
    found = [ClassProbability(name=classes[number], probability=p) for number, p in listed]
    first = found[0] if found else None
    return PredictedImage(
        name=name,
        class_=first and first.name,
        probability=first and first.probability,
        classes=found,
    )


def _csv(result: dict[str, Any]) -> Response:
    """Laid beside the images as their labels.csv, it says of each what the model did; so what was
    left out is not in it: an empty label would say that none applies."""
    several, classes = result["label_kind"] == "multi_label", result["classes"]

    def rows() -> Iterator[list[str | float | None]]:
        for name, listed in store.images(result):
            names = "|".join(classes[number] for number, _ in listed)
            yield [
                name,
                names if several else classes[listed[0][0]],
                listed[0][1] if listed else None,
                names,
                "|".join(f"{probability:g}" for _, probability in listed),
            ]

    header = ["file", "label", "probability", "classes", "probabilities"]
    return formats.csv_stream(header, rows())
