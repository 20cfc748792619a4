"""Timings of candidates on this machine: what makes their seconds measurements."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.progress import Progress, TaskID

from app import terminal
from app.catalogue import CandidateCard, DeviceCard
from app.cli.options import (
    LOCAL_SERVER,
    AsJson,
    Key,
    Server,
    card_names,
)
from app.cli.root import FAILED, app, fail
from app.cli.shared import print_json, require_extras, settings_of
from app.client import Client
from app.errors import Conflict, InvalidRequest, Task2VecError
from app.words import choices

BATCH_SIZE = 64
"""That of the shipped recipes: the pace by image is not that of smaller ones."""

LOOK_SECONDS = 1.0
MOST_BUSY_PERCENT = 25.0
"""Of all processors together, over LOOK_SECONDS, by whatever else runs."""


@app.command("time")
def time_candidates(
    device: Annotated[
        str,
        typer.Argument(
            metavar="DEVICE",
            help="The card of `task2vec devices` that this is.",
            autocompletion=card_names("devices"),
        ),
    ],
    candidates: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CANDIDATE]...",
            help="All, if left out.",
            autocompletion=card_names("candidates"),
        ),
    ] = None,
    on: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda:0; TASK2VEC_DEVICE if left out.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=2, help="Images in a batch: your recipe's.")
    ] = BATCH_SIZE,
    steps: Annotated[int, typer.Option(min=5, help="Batches that are timed.")] = 25,
    seconds: Annotated[
        float, typer.Option(min=0, help="Once so many are over: the few batches a timing needs.")
    ] = 20.0,
    busy: Annotated[
        bool, typer.Option("--busy", help="Though other work keeps this machine busy.")
    ] = False,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Time training steps of candidates on this machine; estimates for DEVICE then rest on them.

    No weights are needed: they are random. Each candidate is reported as soon as it is timed.
    """
    require_extras("worker")
    with Client(server, key) as client:
        card = DeviceCard.model_validate(_find(client, "devices", [device])[0], strict=False)
        cards = _find(client, "candidates", candidates)
    import torch

    from app.embedding.probe import choose_device
    from app.training.steps import time_steps

    settings = settings_of(device=on)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    here = choose_device(settings.device)
    _require_same_kind(card, here.type)
    if not busy:
        _require_idle()
    made: list[dict[str, Any]] = []
    failed: list[str] = []
    with Client(server, key) as client, terminal.progress_bars() as bars:
        for each in cards:
            candidate = CandidateCard.model_validate(each, strict=False)
            bar = bars.add_task(candidate.name, total=None, phase="batches")
            try:
                timing = time_steps(
                    candidate,
                    here,
                    card.precision,
                    batch_size=batch_size,
                    steps=steps,
                    most_seconds=seconds / 2,
                    on_step=partial(_advance, bars, bar),
                )
            except Task2VecError as error:  # others may do
                failed.append(f"{candidate.name}: {error}")
                continue
            finally:
                bars.remove_task(bar)
            report = {"device": device, "candidate": candidate.name, **asdict(timing)}
            made.append(client.post("/v1/timings", report))
    _print(made, as_json)
    if failed:
        fail(" ".join(failed), FAILED)


@app.command()
def timings(
    device: Annotated[
        str | None,
        typer.Option(help="Only on this one.", autocompletion=card_names("devices")),
    ] = None,
    remove: Annotated[
        str | None,
        typer.Option(
            metavar="CANDIDATE",
            help="Take back the timing of this one on --device.",
            autocompletion=card_names("candidates"),
        ),
    ] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List what was timed, or take a timing back."""
    if remove is not None and device is None:
        raise InvalidRequest(
            "device-missing",
            "A candidate may be timed on several devices.",
            "Name with --device the one whose timing goes.",
        )
    with Client(server, key) as client:
        if remove is not None:
            names = (quote(name, safe="") for name in (device or "", remove))
            client.delete("/v1/timings/" + "/".join(names))
        found = client.get("/v1/timings", device=device)["items"]
    _print(found, as_json)


def _advance(bars: Progress, bar: TaskID, done: int, total: int) -> None:
    bars.update(bar, completed=done, total=total)


def _print(items: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"items": items})
    else:
        terminal.out.print(terminal.timings_table(items))


def _find(client: Client, kind: str, names: list[str] | None) -> list[dict[str, Any]]:
    """Cards of these names, or all."""
    cards = {card["name"]: card for card in client.get(f"/v1/{kind}")["items"]}
    for name in names or ():
        if name not in cards:
            raise InvalidRequest(
                "unknown-card",
                f"There is no {kind.removesuffix('s')} {name!r}.",
                f"{choices(cards, name)} `task2vec {kind}` lists all.",
            )
    return [cards[name] for name in names or cards]


def _require_idle() -> None:
    import psutil

    busy = psutil.cpu_percent(interval=LOOK_SECONDS)
    if busy > MOST_BUSY_PERCENT:
        raise Conflict(
            "machine-busy",
            f"Other work keeps {busy:.0f}% of this machine's processors busy, and steps would seem "
            "to take longer than they do.",
            "End it and try again, or time all the same with --busy.",
        )


def _require_same_kind(card: DeviceCard, here: str) -> None:
    kind = {"cuda": "gpu"}.get(here, here)
    if kind != card.kind:
        raise InvalidRequest(
            "device-differs",
            f"{card.name} is a {card.kind}, and this would compute on {here}.",
            "Name the card of this machine, or say with --on where to compute.",
        )
