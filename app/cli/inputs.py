"""What `embed` is given: options that say what it is, and what is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app import terminal
from app.cli.options import one_of
from app.inputs.patterns import NothingThere
from app.inputs.pictures import Asked

if TYPE_CHECKING:
    from app.inputs.packed import Input

FormName = Literal["folder", "table", "parquet", "arrow", "webdataset", "coco"]

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...",
        help="A folder, an archive, a dataset's files or a pattern of them, hf://datasets/...",
    ),
]
Form = Annotated[
    FormName | None,
    typer.Option(metavar="FORM", help=f"What PATH is, where that is not plain. {one_of(FormName)}"),
]
Split = Annotated[str | None, typer.Option(help="Which split; train if left out; or all.")]
ImageColumn = Annotated[str | None, typer.Option(help="Where the images are.")]
LabelColumn = Annotated[str | None, typer.Option(help="Where the labels are.")]


def open_input(paths: list[str], asked: Asked) -> Path | Input:
    from app.inputs.recognise import read_input

    try:
        found = read_input(paths, asked)
    except NothingThere as error:
        raise typer.BadParameter(str(error)) from error
    _say(f"Taken for {_taken_for(found)}.")
    return found


def tell_left_out(found: Path | Input) -> None:
    """Once it was read to its end."""
    if not isinstance(found, Path) and found.left_out:
        reasons = (f"{number:,} {reason}" for reason, number in found.left_out.most_common())
        _say(f"Left out: {'; '.join(reasons)}.")


def input_facts(found: Path | Input) -> dict[str, Any]:
    left_out = {} if isinstance(found, Path) else dict(found.left_out)
    return {"taken_for": _taken_for(found), "left_out": left_out}


def _taken_for(found: Path | Input) -> str:
    if not isinstance(found, Path):
        return found.taken_for
    return "a plain folder" if found.is_dir() else "an archive"


def _say(sentence: str) -> None:
    terminal.err.print(terminal.plain(sentence), soft_wrap=True)
