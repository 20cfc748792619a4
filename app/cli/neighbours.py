"""Tasks beside each other: the nearest, distances, the map."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import terminal
from app.cli.map import draw_map
from app.cli.names import find_tasks
from app.cli.options import (
    LOCAL_SERVER,
    AsJson,
    Key,
    LabelKindOf,
    Metric,
    Server,
    TaskRef,
    one_of,
)
from app.cli.picture import require_picture, tell_of_picture
from app.cli.root import app
from app.cli.shared import print_json, settings_of
from app.client import Client
from app.store.progress import counting

if TYPE_CHECKING:
    from app.embedding.vector import TaskEmbedding


@app.command()
def neighbours(
    task: TaskRef,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many.")] = 10,
    metric: Metric = None,
    tag: Annotated[str | None, typer.Option(help="Only tasks with this tag.")] = None,
    label_kind: Annotated[
        LabelKindOf | None,
        typer.Option(metavar="KIND", help=f"Only tasks of this kind. {one_of(LabelKindOf)}"),
    ] = None,
    min_classes: Annotated[int | None, typer.Option(min=2, help="Of so many classes.")] = None,
    max_classes: Annotated[int | None, typer.Option(min=2, help="Of no more classes.")] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Rank the tasks nearest to TASK by exact distance."""
    filters = {
        "tag": tag,
        "label_kind": label_kind,
        "min_classes": min_classes,
        "max_classes": max_classes,
    }
    with Client(server, key) as client, terminal.phases() as tell:
        tell("waiting for the ranking", 0, 0)
        found = client.find_task(task)
        answer = client.get(f"/v1/tasks/{found['id']}/neighbours", k=k, metric=metric, **filters)
    if as_json:
        print_json(answer)
    else:
        title = f"Nearest to {found['name']}"
        filtered = any(value is not None for value in filters.values())
        terminal.out.print(terminal.neighbours_table(answer, title, filtered=filtered))


@app.command()
def distance(
    items: Annotated[
        list[str],
        typer.Argument(metavar="A B ...", help="Tasks, or .npz files of `embed --local`."),
    ],
    metric: Metric = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Print the matrix of distances: row is the source, column the target, in the order given."""
    if len(items) < 2:
        raise typer.BadParameter("Name at least two tasks or .npz files.")

    from app.local import compare_here

    with terminal.phases() as tell:
        told = partial(tell, "finding tasks")
        if any(item.endswith(".npz") for item in items):
            counted = counting(items, len(items), told)
            embeddings = [_load_embedding(item, server, key) for item in counted]
            tell("computing distances", 0, 0)
            answer = compare_here(embeddings, metric, settings_of().models_dir)
        else:
            with Client(server, key) as client:
                ids = list(counting(find_tasks(client, items), len(items), told))
                tell("waiting for distances", 0, 0)
                answer = client.post("/v1/distances", {"tasks": ids, "metric": metric})
    if as_json:
        print_json(answer | {"items": items})
    else:
        names = [Path(item).name for item in items]
        terminal.out.print(terminal.distances_table(names, answer))


@app.command()
def atlas(
    space: Annotated[str | None, typer.Option(help="Space, where there are several.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the map is drawn: FILE.svg, .png or .pdf."),
    ] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show the clusters on the map of tasks, and which of them join."""
    require_picture(plot)
    all_points = as_json or plot is not None
    with Client(server, key) as client, terminal.phases() as tell:
        tell("reading the map", 0, 0)
        answer = client.get("/v1/atlas", limit=10_000 if all_points else 1, space_id=space)
        while all_points and answer["next_cursor"]:
            tell("reading the map", len(answer["items"]), answer["tasks"])
            more = client.get(
                "/v1/atlas", limit=10_000, space_id=space, cursor=answer["next_cursor"]
            )
            answer["items"] += more["items"]
            answer["next_cursor"] = more["next_cursor"]
        if plot is not None:
            tell("drawing the map", 0, 0)
            draw_map(answer, plot)
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.atlas_report(answer))
        tell_of_picture(plot)


def _load_embedding(item: str, server: str, key: str | None) -> TaskEmbedding:
    from app.embedding.vector import TaskEmbedding

    if item.endswith(".npz"):
        return TaskEmbedding.from_npz(Path(item))
    with Client(server, key) as client:
        task = client.find_task(item)
        return TaskEmbedding.from_npz(
            client.download(f"/v1/tasks/{task['id']}/embedding", format="npz")
        )
