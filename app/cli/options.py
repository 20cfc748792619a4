"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from app.embedding.metric_names import MetricName

LOCAL_SERVER = "http://127.0.0.1:8000"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Server = Annotated[
    str, typer.Option(envvar="TASK2VEC_SERVER", help="Address of the service, http://HOST:PORT.")
]
Key = Annotated[
    str | None,
    typer.Option(envvar="TASK2VEC_KEY", show_envvar=True, help="API key, where one is asked for."),
]
TaskRef = Annotated[str, typer.Argument(metavar="TASK", help="Id, or a name that only one has.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where the service keeps its data [TASK2VEC_DATA_DIR].")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on [TASK2VEC_HOST].")]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="0: any free one [TASK2VEC_PORT].")
]
WorkerDevice = Annotated[
    str | None,
    typer.Option(help="Where the worker computes: auto, cpu, cuda, cuda:1, mps [TASK2VEC_DEVICE]."),
]
Metric = Annotated[
    MetricName | None, typer.Option(help="Which distance; left out, the default of the space.")
]
AddCard = Annotated[
    Path | None, typer.Option(metavar="CARD.toml", exists=True, help="Add a card of your own.")
]
LabelKind = Literal["auto", "single_label", "multi_label"]
Device = Annotated[str | None, typer.Option(help="A device of `task2vec devices`.")]
Recipe = Annotated[str | None, typer.Option(help="A recipe of `task2vec recipes`.")]
