"""A task for people to read: a section for the card of its dataset, with the front matter that
dataset hubs read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app import __version__
from app.api import estimates, neighbours, tasks
from app.api.auth import Tenant
from app.api.limits import Limits
from app.api.line import IN_LINE
from app.api.problems import problems
from app.api.resources import Reached, Reading
from app.api.schemas import (
    CardRef,
    EstimatesAnswer,
    IntervalAnswer,
    NeighboursAnswer,
    TaskAnswer,
)
from app.catalogue import DEFAULT_DEVICE, DEFAULT_RECIPE
from app.store import tasks as store
from app.store.neighbours import Filters
from app.words import ask, counted, distance, duration, money, number, percent

router = APIRouter(tags=["tasks"])

MARKDOWN = "text/markdown"
CLASSES_TOLD = 100
# As dataset hubs count: a name for what lies below each number of images.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
_LARGEST = "1M<n<10M"  # no task has more images than fit into an archive
_KINDS = {"single_label": "multi-class", "multi_label": "multi-label"}


@router.get(
    "/tasks/{task_id}/card",
    response_class=Response,
    responses={200: {"content": {MARKDOWN: {"schema": {"type": "string"}}}}, **problems(404, 409)},
    dependencies=[IN_LINE],
)
def get_card(
    request: Request,
    reached: Reached,
    task_id: tasks.TaskIdPath,
    tenant: Tenant,
    session: Reading,
    device: Annotated[CardRef, Query()] = DEFAULT_DEVICE,
    recipe: Annotated[CardRef, Query()] = DEFAULT_RECIPE,
    k: Annotated[int, Query(ge=1, le=50, description="of neighbours, and of models")] = 5,
) -> Response:
    """Classes, complexity, nearest tasks, models to start from, how it was measured: Markdown."""
    tasks.present_embedding(store.get_task(session, tenant, task_id))
    near = neighbours.get_neighbours(
        request, reached, task_id, tenant, session, Filters(), k=k, wanted="json"
    )
    told = estimates.get_estimates(
        request, reached, task_id, tenant, session, Limits(), device, recipe, k=k, wanted="json"
    )
    assert isinstance(near, NeighboursAnswer)  # noqa: S101
    assert isinstance(told, EstimatesAnswer)  # noqa: S101
    task = tasks.get_task(task_id, tenant, session)
    text = "\n\n".join(_card(task, near, told))
    return Response(text, media_type=f"{MARKDOWN}; charset=utf-8")


def _card(task: TaskAnswer, near: NeighboursAnswer, told: EstimatesAnswer) -> Iterator[str]:
    images, of = task.counts.images or 0, task.provenance or {}
    yield _front_matter(task, images)
    several = ", several an image" if task.label_kind == "multi_label" else ""
    origin = f" From {_plain(task.source)}." if task.source else ""
    yield (
        f"## {_plain(task.name)}\n\n{counted(images, 'image')} in "
        f"{counted(task.counts.classes or 0, 'class')}{several}.{origin}"
    )
    if classes := (task.intake or {}).get("classes"):
        rows = [(_plain(label), f"{count:,}") for label, count in classes.items()]
        yield _table("Classes", ("class", "images"), rows[:CLASSES_TOLD])
        if len(rows) > CLASSES_TOLD:
            yield f"And {counted(len(rows) - CLASSES_TOLD, 'class')} more."
    among = ""
    known = task.among_library
    if known is not None and known.tasks:
        library = counted(known.tasks, "task")
        among = f" Of the {library} of the reference library, {ask(known.easier)} for less."
    yield (
        f"### Complexity\n\n{number(task.complexity or 0.0)}: how much information the weights of "
        f"`{task.probe}` would have to take in to tell these classes apart.{among}"
    )
    if near.neighbours:
        yield _table(
            "Nearest tasks",
            ("task", "distance", "noise floor", "classes"),
            (
                (
                    _plain(row.name) + (" (reference library)" if row.library else ""),
                    distance(row.distance),
                    "-" if row.noise_floor is None else distance(row.noise_floor),
                    f"{row.classes or 0:,}",
                )
                for row in near.neighbours
            ),
            f"By exact `{near.metric}` distance; what lies below the noise floor tells nothing.",
        )
    yield _table(
        "Models to start from",
        ("model", "accuracy", "time", "money", "ranked"),
        (
            (
                f"`{row.candidate}`",
                "-" if row.accuracy is None else _range(row.accuracy, percent),
                _range(row.seconds, duration),
                _range(row.money_usd, money),
                row.reason,
            )
            for row in told.estimates
        ),
        f"Estimates for the recipe `{told.recipe}` on `{told.device}`: typical values, and in "
        f"brackets {_what_ranges_are(told)}.",
    )
    yield (
        f"### How it was measured\n\nThrough the probe `{of['probe']}` (weights "
        f"`{of['probe_digest'][:12]}`), as the Fisher information of its filters: "
        f"{counted(of['draws'], 'pass')} an image by `{of['estimator']}`, seed {of['seed']}, on "
        f"{of['device']}. Noise floor {distance(task.noise_floor or 0.0)} (cosine). Compare "
        f"complexity and distances only within the space `{task.space_id}`.\n\n"
        f"Made by Task2Vec {__version__}, version {task.version} of the task `{task.id}`.\n"
    )


def _front_matter(task: TaskAnswer, images: int) -> str:
    size = next((name for most, name in _SIZES if images < most), _LARGEST)
    fields: dict[str, Any] = {
        "pretty_name": task.name,
        "license": task.licence.lower() if task.licence else None,
        "task_categories": ["image-classification"],
        "task_ids": [f"{_KINDS[task.label_kind]}-image-classification"],
        "size_categories": [size],
        "tags": [*task.tags, "task2vec"],
    }
    # JSON is YAML, but for its escapes of what lies beyond 16 bits.
    lines = (
        f"{name}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in fields.items()
        if value is not None
    )
    return "\n".join(("---", *lines, "---"))


def _table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[str]], says: str | None = None
) -> str:
    lines = (f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
    table = "\n".join(lines)
    return "\n\n".join((f"### {title}", *((says,) if says else ()), table))


def _range(interval: IntervalAnswer, told: Callable[[float], str]) -> str:
    return f"{told(interval.typical)} ({told(interval.low)} to {told(interval.high)})"


def _what_ranges_are(told: EstimatesAnswer) -> str:
    """Of accuracy and of time, in the words of the estimates."""
    kinds = {
        each.kind.replace("_", " ")
        for row in told.estimates
        for each in (row.accuracy, row.seconds)
        if each is not None
    }
    return f"their ranges ({', '.join(sorted(kinds))})"


def _plain(text: str) -> str:
    """Text that came from elsewhere: no markup, no line breaks."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", printable)
