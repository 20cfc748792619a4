"""Tasks: listed, told of, changed, deleted."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app import terminal
from app.cli.names import tell_of_namesakes
from app.cli.options import (
    LOCAL_SERVER,
    AsJson,
    Device,
    Key,
    Recipe,
    Server,
    TaskRef,
    TaskStatus,
    one_of,
)
from app.cli.root import app
from app.cli.shared import print_json
from app.client import Client
from app.client.problems import ProblemAnswered
from app.errors import InvalidRequest


@app.command()
def tasks(
    status: Annotated[
        TaskStatus | None,
        typer.Option(metavar="STATE", help=f"Only tasks in this state. {one_of(TaskStatus)}"),
    ] = None,
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
        terminal.out.print(terminal.tasks_table(found, filtered=any(asked.values())))


@app.command()
def intake(
    task: TaskRef,
    all_files: Annotated[
        bool, typer.Option("--all", help="Also files that are used as they are.")
    ] = False,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Which files of TASK were left out, and why; what is wrong with one that has a problem."""
    with Client(server, key) as client:
        found = client.find_task(task)
        answer = _intake_of(client, found) | {"problem": found["problem"]}
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.intake_report(answer, found, all_files=all_files))


def _intake_of(client: Client, task: dict[str, Any]) -> dict[str, Any]:
    """Without a summary where it failed before all of its files were read."""
    try:
        report: dict[str, Any] = client.get(f"/v1/tasks/{task['id']}/intake")
    except ProblemAnswered as nothing:
        if nothing.code != "no-intake" or task["problem"] is None:
            raise
        return {"id": task["id"], "summary": None, "files": []}
    return report


@app.command()
def change(
    task: TaskRef,
    name: Annotated[str | None, typer.Option(help="What it is called from now on.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Repeat for several; they replace those it has.")
    ] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Call TASK otherwise, or tag it."""
    if name is None and tag is None:
        raise typer.BadParameter("Say what changes: --name, --tag or both.")
    changes = {"name": name, "tags": tag}
    with Client(server, key) as client:
        found = client.find_task(task)
        answer = client.patch(
            f"/v1/tasks/{found['id']}",
            {field: value for field, value in changes.items() if value is not None},
        )
        if name is not None:
            tell_of_namesakes(client, answer)
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.task_facts(answer))


@app.command()
def delete(
    task: TaskRef,
    confirmed: Annotated[
        bool, typer.Option("--yes", help="It is meant: without this, nothing is done.")
    ] = False,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Delete TASK with its images, jobs and fine-tuning runs. There is no way back."""
    with Client(server, key) as client:
        found = client.find_task(task)
        if not confirmed:
            raise InvalidRequest(
                "not-confirmed",
                f"This deletes the task {found['name']!r} ({found['id']}, {found['status']}) with "
                "its images, jobs and fine-tuning runs, and there is no way back.",
                "If that is meant, say so with --yes.",
            )
        client.delete(f"/v1/tasks/{found['id']}")
    if as_json:
        print_json({"id": found["id"], "deleted": True})
    else:
        typer.echo(f"deleted {found['id']}")


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
