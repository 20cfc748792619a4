"""A labelled image set becomes a task, or an embedding in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
from app.cli.jobs import follow, require_success
from app.cli.names import tell_of_namesakes
from app.cli.options import (
    LOCAL_SERVER,
    AsJson,
    Key,
    LabelKind,
    Server,
    card_names,
    one_of,
)
from app.cli.root import app
from app.cli.shared import print_json, require_extras, settings_of
from app.client import Client
from app.folder import Archive, archive_bytes
from app.inputs.pictures import Asked
from app.settings import Settings


@app.command()
def embed(
    paths: Paths,
    name: Annotated[
        str | None, typer.Option(help="Name of the task; the file's if left out.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    label_kind: Annotated[
        LabelKind,
        typer.Option(
            metavar="KIND",
            help=f"What a label is; auto looks at the labels. {one_of(LabelKind)}",
        ),
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
        here = f"/v1/tasks/{accepted['id']}"
        task = client.get(here)
        tell_of_namesakes(client, task)
        if wait:
            try:
                follow(client, accepted["job_id"], task["name"])
            except KeyboardInterrupt:
                terminal.err.print(f"The job goes on: `task2vec job {accepted['job_id']}`.")
                raise
            task = client.get(here)
    if as_json:
        print_json((task if wait else accepted) | {"input": input_facts(archive)})
    elif wait:
        terminal.out.print(terminal.task_facts(task))
    else:
        typer.echo(f"task {accepted['id']}\njob  {accepted['job_id']}")
    if wait:
        require_success(task["status"], task["problem"])


def _send(client: Client, archive: Path | Archive, metadata: dict[str, Any]) -> dict[str, Any]:
    with terminal.upload_bar() as bars:
        bar = bars.add_task("sending", total=archive_bytes(archive))
        return client.send_task(
            archive,
            metadata,
            on_progress=lambda what, done: bars.update(bar, description=what, completed=done),
            on_detour=lambda why: terminal.err.print(terminal.plain(why), style="yellow"),
        )


def _embed_here(
    paths: list[str], asked: Asked, out: Path, settings: Settings, as_json: bool
) -> None:
    require_extras("worker")
    archive = open_input(paths, asked)

    from app.local import embed_here, write_embedding

    with terminal.progress_bars() as bars:
        bar = bars.add_task(paths[0], phase="", total=None)

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
