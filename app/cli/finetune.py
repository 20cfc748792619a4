"""Fine-tuning: a candidate trained on a stored task by the service's worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app import terminal
from app.cli.curve import draw_curve
from app.cli.jobs import follow, require_success
from app.cli.options import (
    LOCAL_SERVER,
    AsJson,
    Device,
    Key,
    Recipe,
    RunId,
    Server,
    TaskRef,
    card_names,
)
from app.cli.picture import require_picture, tell_of_picture
from app.cli.root import app
from app.cli.shared import print_json
from app.client import Client
from app.files import whole
from app.training.names import FILES


@app.command()
def finetune(
    task: TaskRef,
    candidate: Annotated[
        str,
        typer.Argument(
            metavar="CANDIDATE",
            help="One of `task2vec candidates`.",
            autocompletion=card_names("candidates"),
        ),
    ],
    recipe: Recipe = None,
    device: Device = None,
    target: Annotated[
        float | None, typer.Option(help="Accuracy on held-out images that is enough, as 0.9.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="USD of the run, at the device's price.")
    ] = None,
    budget_seconds: Annotated[float | None, typer.Option(min=0, help="Likewise of time.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Epochs without a lower loss before it ends.")
    ] = None,
    trace_every: Annotated[
        int, typer.Option(min=0, help="Epochs between traces of information.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    wait: Annotated[bool, typer.Option(help="Wait until the model is there.")] = True,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the model is put.")
    ] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Train CANDIDATE on the images of TASK; what it gave and took becomes an outcome."""
    if out is not None and not wait:
        raise typer.BadParameter("--out needs the model: leave out --no-wait.")
    if out is not None and any((out / name).exists() for name in FILES.values()):
        raise typer.BadParameter(f"{out} has a model in it: name another folder for this one.")
    asked = {
        "candidate": candidate,
        "recipe": recipe,
        "device": device,
        "target": target,
        "patience": patience,
        "trace_every": trace_every,
        "seed": seed,
        "budget_usd": budget,
        "budget_seconds": budget_seconds,
    }
    with Client(server, key) as client:
        found = client.find_task(task)
        accepted = client.post(
            f"/v1/tasks/{quote(found['id'], safe='')}/finetunes",
            {name: value for name, value in asked.items() if value is not None},
        )
        for warning in accepted["warnings"]:
            terminal.err.print(terminal.plain(warning), style="yellow", soft_wrap=True)
        if wait:
            try:
                follow(client, accepted["job_id"], candidate)
            except KeyboardInterrupt:
                job = accepted["job_id"]
                terminal.err.print(
                    f"The run goes on: `task2vec job {job}`, `task2vec cancel {job}`."
                )
                raise
        run = client.get(f"/v1/finetunes/{accepted['id']}")
        if out is not None and run["state"] == "succeeded":
            _fetch(client, run, out)
    if as_json:
        print_json(run)
    else:
        # What went wrong is the last line, and not told twice.
        terminal.out.print(terminal.finetune_report(run | {"problem": None} if wait else run))
        if out is not None and run["state"] == "succeeded":
            terminal.out.print(f"\nIn {out}: {', '.join(FILES.values())}.")
    if wait:
        require_success(run["state"], run["problem"])


@app.command()
def finetunes(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Id of one, or how it begins.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Only of this task.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Where a run's curve is drawn.")
    ] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the fine-tuning runs, newest first, or show one."""
    if plot is not None and run is None:
        raise typer.BadParameter("--plot draws one run: name it.")
    require_picture(plot)
    with Client(server, key) as client:
        if run is not None:
            answer: Any = client.find("/v1/finetunes", run)
        else:
            task_id = client.find_task(task)["id"] if task else None
            answer = {"items": list(client.pages("/v1/finetunes", limit=200, task_id=task_id))}
    if plot is not None:
        draw_curve(answer, plot)
    if as_json:
        print_json(answer)
    elif run is not None:
        terminal.out.print(terminal.finetune_report(answer))
        tell_of_picture(plot)
    else:
        terminal.out.print(terminal.finetunes_table(answer["items"]))


@app.command()
def register(
    run: RunId,
    name: Annotated[
        str | None, typer.Option(help="Of the candidate; without it, made of the parent's.")
    ] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make the model of RUN a candidate of yours, to be estimated and fine-tuned like any other."""
    asked = {} if name is None else {"name": name}
    with Client(server, key) as client:
        found = client.find("/v1/finetunes", run)
        card = client.post(f"{found['links']['self']}/candidate", asked)
    if as_json:
        print_json(card)
    else:
        terminal.out.print(terminal.candidates_table([card]))


def _fetch(client: Client, run: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, name in FILES.items():
        with whole(folder / name) as part:
            part.write_bytes(client.download(run["links"][file]))
