"""Outcomes, and the estimator that learns from them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app import terminal
from app.cli.options import LOCAL_SERVER, AsJson, Key, Server, card_names
from app.cli.root import FAILED, estimator_app, fail, outcomes_app
from app.cli.shared import print_json, settings_of
from app.client import Client
from app.client.tables import read_table
from app.errors import NotFound
from app.words import counted


@outcomes_app.command("import")
def import_outcomes(
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, readable=True, help="CSV, or .parquet."),
    ],
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Add the runs of an outcome table; rows that cannot be are told, the others added once."""
    content, media_type = read_table(file)
    with Client(server, key) as client:
        answer = client.post_bytes("/v1/outcomes:import", content, media_type)
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.import_report(answer))
    if answer["refused"]:
        told = counted(answer["refused"], "row")
        fail(f"{told} refused; mend what is wrong and import the table again.", FAILED)


@outcomes_app.command("list")
def list_outcomes(
    task: Annotated[str | None, typer.Option(help="Only of this task.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Only of this candidate.", autocompletion=card_names("candidates")),
    ] = None,
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="Only what nothing is learnt from.")
    ] = False,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the outcomes, newest first."""
    with Client(server, key) as client:
        asked = {
            "task": task and _task_of_outcomes(client, task),
            "model": model,
            "quarantined": quarantined or None,
        }
        found = list(client.pages("/v1/outcomes", limit=200, **asked))
    if as_json:
        print_json({"items": found})
    else:
        terminal.out.print(terminal.outcomes_table(found, filtered=any(asked.values())))


def _task_of_outcomes(client: Client, reference: str) -> str:
    """The id of a task here, or what tables of outcomes call one that is not.

    Raises NotFound where it is neither.
    """
    try:
        found: str = client.find_task(reference)["id"]
    except NotFound:
        if client.get("/v1/outcomes", task=reference, limit=1)["items"]:
            return reference
        raise
    return found


@outcomes_app.command("release")
def release_outcome(
    outcome_id: Annotated[
        str, typer.Argument(metavar="OUTCOME", help="Id of an outcome, or how it begins.")
    ],
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Take an outcome out of quarantine: somebody looked, and it is as it says."""
    with Client(server, key) as client:
        found = client.find("/v1/outcomes", outcome_id)
        answer = client.patch(f"/v1/outcomes/{found['id']}", {"quarantined": False})
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"released {answer['id']}")


@outcomes_app.command("share")
def share_outcomes(
    yes: Annotated[
        bool | None,
        typer.Option("--yes/--no", help="Whether they may; left out, what is set is told."),
    ] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Let other tenants' estimates learn from your outcomes, without names, or take them back."""
    with Client(server, key) as client:
        if yes is None:
            answer = client.get("/v1/tenant")
        else:
            answer = client.patch("/v1/tenant", {"share_outcomes": yes})
    if as_json:
        print_json(answer)
    else:
        shared = "are" if answer["share_outcomes"] else "are not"
        typer.echo(f"Your outcomes {shared} shared.")


@estimator_app.command("show")
def show_estimator(server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """What the service's estimator was fitted to, how good it is, whether it still holds."""
    with Client(server, key) as client:
        answer = client.get("/v1/estimator")
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.estimator_report(answer))


@estimator_app.command("evaluate")
def evaluate_estimator(
    outcomes: Annotated[
        Path,
        typer.Option(
            exists=True, dir_okay=False, readable=True, help="Outcome table, CSV or Parquet."
        ),
    ],
    group: Annotated[str, typer.Option(help="Column; what is left out at a time.")] = "task",
    recipe: Annotated[str | None, typer.Option(help="Only outcomes of this recipe.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of resampling.")] = 0,
    as_json: AsJson = False,
) -> None:
    """How good the estimator is on a table of outcomes, beside baselines."""
    from app.catalogue import CandidateCard, load_cards
    from app.cost.evaluation import evaluate
    from app.cost.outcome_table import kind_of, read_outcomes

    table = read_outcomes(outcomes, kind_of(outcomes))
    sizes = {
        name: card.parameters
        for full_name, card in load_cards(settings_of().models_dir, CandidateCard).items()
        for name in (full_name, full_name.partition(".")[0])
    }
    with terminal.progress_bars() as bars:
        bar = bars.add_task(outcomes.name, phase="reading", total=None)
        found = evaluate(
            table,
            group=group,
            recipe=recipe,
            parameters=sizes,
            seed=seed,
            on_progress=lambda name, done, total: bars.update(
                bar, phase=name, completed=done, total=total
            ),
        )
    answer = {
        **found.summary,
        "intervals": found.intervals,
        "baselines": found.baselines,
        "paired": {name: d and asdict(d) for name, d in found.paired.items()},
        "outcomes": str(outcomes),
        "group": group,
        "recipe": recipe,
        "tasks": len(found.tasks),
        "groups": found.n_groups,
        "candidates": found.n_candidates,
        "cells": found.n_cells,
        "timed_runs": found.n_timed_runs,
        "left_out": [
            {"row": fault.row, "column": fault.column, "reason": fault.reason}
            for fault in table.errors
        ],
    }
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.evaluation_report(answer))
