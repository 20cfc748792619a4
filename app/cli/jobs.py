"""Jobs: followed, listed, shown, taken back."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app import terminal
from app.cli.options import (
    LOCAL_SERVER,
    AsJson,
    JobId,
    JobState,
    Key,
    Server,
    one_of,
)
from app.cli.root import app
from app.cli.shared import print_json
from app.client import Client
from app.client.problems import ProblemAnswered
from app.errors import Conflict


@app.command()
def jobs(
    task: Annotated[str | None, typer.Option(help="Only of this task.")] = None,
    state: Annotated[
        JobState | None,
        typer.Option(metavar="STATE", help=f"Only jobs in this state. {one_of(JobState)}"),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 20,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs, newest first."""
    with Client(server, key) as client:
        task_id = client.find_task(task)["id"] if task else None
        asked = {"limit": min(k, 200), "state": state, "task_id": task_id}
        found = list(islice(client.pages("/v1/jobs", **asked), k))
    if as_json:
        print_json({"items": found})
    else:
        terminal.out.print(terminal.jobs_table(found, filtered=bool(task or state)))


@app.command()
def job(
    job_id: JobId, server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False
) -> None:
    """Show how far a job has come."""
    with Client(server, key) as client:
        _show_job(client.find("/v1/jobs", job_id), as_json)


@app.command()
def cancel(
    job_id: JobId, server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False
) -> None:
    """Take a job back; one that is running stops within a batch."""
    with Client(server, key) as client:
        found = client.find("/v1/jobs", job_id)
        _show_job(client.delete(f"/v1/jobs/{quote(found['id'], safe='')}"), as_json)


def _show_job(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        terminal.out.print(terminal.job_facts(found))


def follow(client: Client, job_id: str, title: str) -> None:
    if not terminal.err.is_terminal:
        terminal.tell_phases(title, client.follow(job_id))
        return
    with terminal.progress_bars() as bars:
        bar = bars.add_task(title, phase="queued", total=None)
        for progress in client.follow(job_id):
            terminal.show_progress(bars, bar, progress)


def require_success(state: str, problem: dict[str, Any] | None) -> None:
    if state not in {"ready", "succeeded"}:
        if problem:
            raise ProblemAnswered(problem)
        raise Conflict(f"task-{state}", f"The task is {state}.", "See the server's log.")
