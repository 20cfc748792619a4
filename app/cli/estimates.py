"""Estimates and plans."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from app import terminal
from app.cli.jobs import follow, require_success
from app.cli.options import (
    LOCAL_SERVER,
    AsJson,
    Device,
    Key,
    Licence,
    MaxInferenceMs,
    MaxParameters,
    Recipe,
    Server,
    TaskRef,
    card_names,
)
from app.cli.root import app
from app.cli.shared import print_json
from app.client import Client


@app.command()
def estimate(
    task: TaskRef,
    device: Device = None,
    recipe: Recipe = None,
    k: Annotated[int | None, typer.Option("-k", min=1, max=1000, help="How many.")] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="USD: leave out what may cost more, at its interval's upper end."),
    ] = None,
    budget_seconds: Annotated[
        float | None, typer.Option(min=0, help="Leave out what may take longer, likewise.")
    ] = None,
    licence: Licence = None,
    max_parameters: MaxParameters = None,
    max_inference_ms: MaxInferenceMs = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Rank candidate models for fine-tuning on TASK, with time, money, energy and memory."""
    with Client(server, key) as client:
        found = client.find_task(task)
        answer = client.get(
            f"/v1/tasks/{found['id']}/estimates",
            device=device,
            recipe=recipe,
            k=k,
            budget_usd=budget,
            budget_seconds=budget_seconds,
            **_limits(licence, max_parameters, max_inference_ms),
        )
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.estimates_table(answer, f"Candidates for {found['name']}"))


def _limits(
    licence: list[str] | None, max_parameters: int | None, max_inference_ms: float | None
) -> dict[str, Any]:
    """Which candidates are taken at all, as the service asks for it."""
    return {
        "licence": licence,
        "max_parameters": max_parameters,
        "max_inference_seconds": None if max_inference_ms is None else max_inference_ms / 1000,
    }


@app.command()
def plan(
    task: TaskRef,
    target: Annotated[
        float | None, typer.Option(help="Accuracy to reach, a share, as 0.9.")
    ] = None,
    tries: Annotated[int, typer.Option(min=1, max=20, help="At most so many candidates.")] = 3,
    device: Device = None,
    recipe: Recipe = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="USD that all tries together surely stay below.")
    ] = None,
    budget_seconds: Annotated[float | None, typer.Option(min=0, help="Likewise of time.")] = None,
    licence: Licence = None,
    max_parameters: MaxParameters = None,
    max_inference_ms: MaxInferenceMs = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Which candidates to try on TASK, in which order, and what may come of it."""
    with Client(server, key) as client:
        found = client.find_task(task)
        answer = client.get(
            f"/v1/tasks/{found['id']}/plan",
            target=target,
            tries=tries,
            device=device,
            recipe=recipe,
            budget_usd=budget,
            budget_seconds=budget_seconds,
            **_limits(licence, max_parameters, max_inference_ms),
        )
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.plan_report(answer, found["name"]))


@app.command()
def score(
    task: TaskRef,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            help="Also several times; all whose weights the worker has, without it.",
            autocompletion=card_names("candidates"),
        ),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until they are told.")] = True,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Look at TASK's images through candidates: what their features tell enters the estimates."""
    with Client(server, key) as client:
        found = client.find_task(task)
        path = f"/v1/tasks/{quote(found['id'], safe='')}/scores"
        accepted = client.post(path, {"candidates": candidate} if candidate else {})
        answer = client.get(path)
        if wait:
            pending = [row["job_id"] for row in answer["scores"] if row["state"] == "pending"]
            for job_id in dict.fromkeys(pending):
                follow(client, job_id, found["name"])
            answer = client.get(path)
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.scores_table(answer, f"What features tell of {found['name']}"))
    asked = [row for row in answer["scores"] if row["candidate"] in accepted["candidates"]]
    if asked and all(row["state"] == "failed" for row in asked):
        require_success("failed", asked[0]["problem"])
