"""Options and arguments that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from app.catalogue import DEFAULT_DEVICE, DEFAULT_RECIPE
from app.embedding.metric_names import MetricName
from app.settings import shared_directory
from app.words import listed

LOCAL_SERVER = "http://127.0.0.1:8000"


def card_names(kind: str) -> Callable[[str], list[str]]:
    """Completes names of cards that ship; one's own are the server's, which is not asked."""

    def begun(incomplete: str) -> list[str]:
        names = (path.stem for path in (shared_directory("models") / kind).glob("*.toml"))
        return sorted(name for name in names if name.startswith(incomplete))

    return begun


def one_of(names: Any) -> str:
    """In words, which break between them; a metavar of many breaks within."""
    return f"One of {listed(get_args(names))}."


def _kinds_of_device(incomplete: str) -> list[str]:
    return [kind for kind in ("auto", "cpu", "cuda", "mps") if kind.startswith(incomplete)]


def _key(told: str | None) -> str | None:
    if told and not re.fullmatch(r"[!-~]+", told):
        raise typer.BadParameter("A key is ASCII without spaces, as t2v_... of `task2vec keys`.")
    return told


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Server = Annotated[
    str, typer.Option(envvar="TASK2VEC_SERVER", help="Address of the service, http://HOST:PORT.")
]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="TASK2VEC_KEY",
        show_envvar=True,
        callback=_key,
        help="API key, where one is asked for.",
    ),
]
TaskRef = Annotated[
    str, typer.Argument(metavar="TASK", help="Id or how it begins, or a name that only one has.")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, or how it begins.")]
RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of a fine-tuning run, or how it begins.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where the service keeps its data [TASK2VEC_DATA_DIR].")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on [TASK2VEC_HOST].")]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="0: any free one [TASK2VEC_PORT].")
]
WorkerDevice = Annotated[
    str | None,
    typer.Option(
        help="Where the worker computes: auto, cpu, cuda, cuda:1, mps [TASK2VEC_DEVICE].",
        autocompletion=_kinds_of_device,
    ),
]
Metric = Annotated[
    MetricName | None,
    typer.Option(
        metavar="METRIC",
        help=f"Which distance; left out, the default of the space. {one_of(MetricName)}",
    ),
]
AddCard = Annotated[
    Path | None, typer.Option(metavar="CARD.toml", exists=True, help="Add a card of your own.")
]
RemoveCard = Annotated[str | None, typer.Option(metavar="NAME", help="Delete a card of your own.")]
LabelKind = Literal["auto", "single_label", "multi_label"]
LabelKindOf = Literal["single_label", "multi_label"]
TaskStatus = Literal["queued", "embedding", "ready", "refused", "failed", "cancelled"]
JobState = Literal["queued", "running", "succeeded", "refused", "failed", "cancelled"]
Device = Annotated[
    str | None,
    typer.Option(
        help=f"One of `task2vec devices`; {DEFAULT_DEVICE} if left out.",
        autocompletion=card_names("devices"),
    ),
]
Licence = Annotated[
    list[str] | None,
    typer.Option(help="Leave out candidates of other licences; also several times."),
]
MaxParameters = Annotated[
    int | None, typer.Option(min=1, help="Leave out networks that are larger.")
]
MaxInferenceMs = Annotated[
    float | None,
    typer.Option(min=0.001, help="Leave out what typically takes longer for one image."),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help=f"One of `task2vec recipes`; {DEFAULT_RECIPE} if left out.",
        autocompletion=card_names("recipes"),
    ),
]
