"""Tasks: embedded, listed, compared, followed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from app import terminal
from app.cli.inputs import (
    Form,
    ImageColumn,
    LabelColumn,
    Paths,
    Split,
    input_facts,
    open_input,
    tell_left_out,
)
from app.cli.map import draw_map
from app.cli.options import (
    LOCAL_SERVER,
    AsJson,
    Device,
    JobId,
    Key,
    LabelKind,
    LabelKindOf,
    Metric,
    Recipe,
    Server,
    TaskRef,
    TaskStatus,
    card_names,
)
from app.cli.picture import require_picture
from app.cli.root import app
from app.cli.shared import print_json, require_extras, settings_of
from app.client import Client
from app.errors import Conflict
from app.folder import Archive, archive_bytes, archive_name
from app.inputs.pictures import Asked
from app.settings import Settings

if TYPE_CHECKING:
    from app.embedding.vector import TaskEmbedding


@app.command()
def embed(
    paths: Paths,
    name: Annotated[
        str | None, typer.Option(help="Name of the task; the file's if left out.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    label_kind: Annotated[
        LabelKind, typer.Option(help="What a label is; auto looks at the labels.")
    ] = "auto",
    form: Form = None,
    split: Split = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    probe: Annotated[
        str | None,
        typer.Option(help="Probe to look through.", autocompletion=card_names("probes")),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the embedding is there.")] = True,
    local: Annotated[
        bool, typer.Option("--local", help="Compute here, without a service.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Where --local writes.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where --local computes.")] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Embed a labelled image set: a folder with one folder per label, an archive, a dataset."""
    asked = Asked(form, split, image_column, label_column, label_kind)
    if local:
        if out is None:
            raise typer.BadParameter("--local needs --out FILE.npz.")
        if not out.parent.is_dir():
            raise typer.BadParameter(f"There is no folder {out.parent} for --out.")
        _embed_here(paths, asked, out, settings_of(probe=probe, device=device), as_json)
        return
    if out is not None or device is not None:
        raise typer.BadParameter("--out and --device go with --local only.")
    metadata = {"name": name, "tags": tag or [], "label_kind": label_kind, "probe": probe}
    archive = open_input(paths, asked)
    with Client(server, key) as client:
        told = {name: value for name, value in metadata.items() if value is not None}
        accepted = _send(client, archive, told)
        tell_left_out(archive)
        if wait:
            try:
                follow(client, accepted["job_id"], name or archive_name(archive))
            except KeyboardInterrupt:
                terminal.err.print(f"The job goes on: `task2vec job {accepted['job_id']}`.")
                raise
        task = client.get(f"/v1/tasks/{accepted['id']}")
    if as_json:
        print_json((task if wait else accepted) | {"input": input_facts(archive)})
    elif wait:
        terminal.out.print(terminal.task_facts(task))
    else:
        typer.echo(f"task {accepted['id']}\njob  {accepted['job_id']}")
    if wait:
        require_success(task["status"], task["problem"])


@app.command()
def tasks(
    status: Annotated[TaskStatus | None, typer.Option(help="Only tasks in this state.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only tasks with this tag.")] = None,
    name: Annotated[str | None, typer.Option(help="Only names that contain this.")] = None,
    library: Annotated[
        bool, typer.Option("--library", help="The reference library's instead of yours.")
    ] = False,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks, newest first."""
    asked = {"status": status, "tag": tag, "q": name, "library": library or None}
    with Client(server, key) as client:
        found = list(client.pages("/v1/tasks", limit=200, **asked))
    if as_json:
        print_json({"items": found})
    else:
        terminal.out.print(terminal.tasks_table(found))


@app.command()
def neighbours(
    task: TaskRef,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many.")] = 10,
    metric: Metric = None,
    tag: Annotated[str | None, typer.Option(help="Only tasks with this tag.")] = None,
    label_kind: Annotated[LabelKindOf | None, typer.Option(help="Only tasks of this kind.")] = None,
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
    with Client(server, key) as client:
        found = client.find_task(task)
        answer = client.get(f"/v1/tasks/{found['id']}/neighbours", k=k, metric=metric, **filters)
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.neighbours_table(answer, f"Nearest to {found['name']}"))


@app.command()
def card(
    task: TaskRef,
    device: Device = None,
    recipe: Recipe = None,
    k: Annotated[int, typer.Option("-k", min=1, max=50, help="Neighbours, and models.")] = 5,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Print what is known of TASK in Markdown, for the card of its dataset."""
    asked = {"device": device, "recipe": recipe, "k": k}
    with Client(server, key) as client:
        found = client.find_task(task)
        text = client.download(f"/v1/tasks/{found['id']}/card", **asked).decode()
    if as_json:
        print_json({"task": found["id"], "card": text})
    else:
        typer.echo(text, nl=False)


@app.command()
def atlas(
    space: Annotated[str | None, typer.Option(help="Space, where there are several.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Where the map is drawn.")
    ] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show the clusters on the map of tasks, and which of them join."""
    require_picture(plot)
    all_points = as_json or plot is not None
    with Client(server, key) as client:
        answer = client.get("/v1/atlas", limit=10_000 if all_points else 1, space_id=space)
        while all_points and answer["next_cursor"]:
            more = client.get(
                "/v1/atlas", limit=10_000, space_id=space, cursor=answer["next_cursor"]
            )
            answer["items"] += more["items"]
            answer["next_cursor"] = more["next_cursor"]
    if plot is not None:
        draw_map(answer, plot)
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.atlas_report(answer))


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

    if any(item.endswith(".npz") for item in items):
        embeddings = [_load_embedding(item, server, key) for item in items]
        answer = compare_here(embeddings, metric, settings_of().models_dir)
    else:
        with Client(server, key) as client:
            ids = [client.find_task(item)["id"] for item in items]
            answer = client.post("/v1/distances", {"tasks": ids, "metric": metric})
    if as_json:
        print_json(answer | {"items": items})
    else:
        names = [Path(item).name for item in items]
        terminal.out.print(terminal.distances_table(names, answer))


@app.command()
def job(
    job_id: JobId, server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False
) -> None:
    """Show how far a job has come."""
    with Client(server, key) as client:
        _show_job(client.get(f"/v1/jobs/{quote(job_id, safe='')}"), as_json)


@app.command()
def cancel(
    job_id: JobId, server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False
) -> None:
    """Take a job back; one that is running stops within a batch."""
    with Client(server, key) as client:
        _show_job(client.delete(f"/v1/jobs/{quote(job_id, safe='')}"), as_json)


def _send(client: Client, archive: Path | Archive, metadata: dict[str, Any]) -> dict[str, Any]:
    with terminal.upload_bar() as bars:
        bar = bars.add_task("sending", total=archive_bytes(archive))
        return client.send_task(
            archive,
            metadata,
            on_progress=lambda what, done: bars.update(bar, description=what, completed=done),
            on_detour=lambda why: terminal.err.print(terminal.plain(why), style="yellow"),
        )


def upload(
    client: Client, to: str, archive: Path | Archive, metadata: dict[str, Any]
) -> dict[str, Any]:
    """Sends an archive, or what is made into one, with a bar."""
    with terminal.upload_bar() as bars:
        bar = bars.add_task("sending", total=archive_bytes(archive))
        return client.upload(
            to, archive, metadata, on_sent=lambda sent: bars.update(bar, completed=sent)
        )


def follow(client: Client, job_id: str, title: str) -> None:
    with terminal.progress_bars() as bars:
        bar = bars.add_task(title, phase="queued", total=None)
        for progress in client.follow(job_id):
            terminal.show_progress(bars, bar, progress)


def _show_job(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        terminal.out.print(terminal.job_facts(found))


def require_success(state: str, problem: dict[str, Any] | None) -> None:
    if state not in {"ready", "succeeded"}:
        said = problem or {}
        raise Conflict(
            f"task-{state}",
            str(said.get("detail") or f"The task is {state}."),
            str(said.get("remedy") or "See the server's log."),
        )


def _embed_here(
    paths: list[str], asked: Asked, out: Path, settings: Settings, as_json: bool
) -> None:
    require_extras("worker")
    archive = open_input(paths, asked)

    from app.local import embed_here, write_embedding

    with terminal.progress_bars() as bars:
        bar = bars.add_task(archive_name(archive), phase="", total=None)

        def on_progress(phase: str, done: int, total: int) -> None:
            bars.update(bar, phase=phase, completed=done, total=total or None)

        embedding, report = embed_here(archive, settings, asked.label_kind, on_progress)
    tell_left_out(archive)
    write_embedding(out, embedding)
    summary = report.summary()
    facts = {
        "out": str(out),
        "images": embedding.provenance.n_images,
        "classes": embedding.provenance.n_classes,
        "complexity": embedding.complexity,
        "noise_floor": embedding.noise_floor,
        "space_id": embedding.space_id,
        "probe_digest": embedding.provenance.probe_digest,
    }
    if as_json:
        print_json(facts | {"intake": summary, "input": input_facts(archive)})
    else:
        terminal.out.print(terminal.embedding_facts(facts, summary))


def _load_embedding(item: str, server: str, key: str | None) -> TaskEmbedding:
    from app.embedding.vector import TaskEmbedding

    if item.endswith(".npz"):
        return TaskEmbedding.from_npz(Path(item))
    with Client(server, key) as client:
        task = client.find_task(item)
        return TaskEmbedding.from_npz(
            client.download(f"/v1/tasks/{task['id']}/embedding", format="npz")
        )
