"""Embeddings of many tasks, in one file."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from app import terminal
from app.cli.options import LOCAL_SERVER, AsJson, Key, Server
from app.cli.root import app
from app.cli.shared import print_json
from app.client import Client
from app.files import whole
from app.words import counted

PAGE_TASKS = 50
"""And rows of a group in the file: of the default probe some 15 MB."""


@app.command()
def export(
    out: Annotated[
        Path, typer.Option(metavar="FILE.parquet", dir_okay=False, help="Where they are written.")
    ],
    tag: Annotated[str | None, typer.Option(help="Only of tasks with this tag.")] = None,
    space: Annotated[str | None, typer.Option(help="Only of this space.")] = None,
    library: Annotated[
        bool, typer.Option("--library", help="The reference library's instead of yours.")
    ] = False,
    array: Annotated[
        list[str] | None,
        typer.Option(help="vector, domain, ...; also several times. All, without it."),
    ] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write the embeddings of all tasks into one Parquet file, a task a row."""
    if not out.parent.is_dir():
        raise typer.BadParameter(f"There is no folder {out.parent} for --out.")
    asked = {"tag": tag, "space_id": space, "library": library or None, "arrays": array or None}
    with Client(server, key) as client, whole(out) as part, terminal.progress_bars() as bars:
        bar = bars.add_task(out.name, phase="tasks", total=None)
        pages = client.tables("/v1/embeddings", limit=PAGE_TASKS, **asked)
        written = _write(part, pages, lambda done: bars.update(bar, completed=done))
    size_bytes = out.stat().st_size
    answer = {"out": str(out), "tasks": written, "bytes": size_bytes}
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(
            terminal.plain(f"{out}: {counted(written, 'task')}, {size_bytes / 1e6:.1f} MB"),
            soft_wrap=True,
        )


def _write(path: Path, pages: Iterator[bytes], on_written: Callable[[int], None]) -> int:
    """How many rows; page by page, so that any number of tasks takes the memory of a few pages."""
    import polars as pl
    from polars.io.plugins import register_io_source

    first, written = next(pages), 0

    def tables(*_: Any) -> Iterator[pl.DataFrame]:
        nonlocal written
        for page in chain([first], pages):
            table = pl.read_parquet(io.BytesIO(page))
            written += len(table)
            on_written(written)
            yield table
            gc.collect()  # an answer refers to itself, and too little is made for its turn to come

    schema = pl.read_parquet_schema(io.BytesIO(first))
    rows = register_io_source(tables, schema=schema)
    rows.sink_parquet(path, row_group_size=PAGE_TASKS)  # else a group may be the whole file
    return written
