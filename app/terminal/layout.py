"""How every table and every list of facts is laid out."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from app.terminal.cells import Row, plain

_WHOLE = {
    "status",
    "from",
    "run",
    "setting",
}  # single words: nothing is gained by folding


def new_table(title: str, *columns: str) -> Table:
    """A column named `#...` holds numbers, to the right; `#` alone is the rank. Text folds."""
    table = Table(
        title=Text(plain(title).plain, style="bold"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        header_style="dim",
    )
    for column in columns:
        if column.startswith("#"):
            table.add_column(plain(column[1:] or "#"), justify="right", no_wrap=True)
        else:
            table.add_column(plain(column), overflow="fold", no_wrap=column in _WHOLE)
    return table


def fact_list(facts: Row, intake: Row | None = None) -> Table:
    """Name and value, one a line, then what the intake warned of."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), value if isinstance(value, Text) else plain(value))
    for warning in (intake or {}).get("warnings", []):
        table.add_row("warning", Text(plain(warning["message"]).plain, style="yellow"))
    return table
