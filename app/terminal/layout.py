"""How every table and every list of facts is laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from app.terminal.cells import Id, Row, plain

Cell = Callable[[Row], RenderableType]

# Single words: nothing is gained by folding.
_WHOLE = {"status", "from", "state", "setting", "prefix", "scope"}
_FOLDS_AT = 18  # letters that a column of text keeps, however long its words are
_GAP = 2


def none_of(noun: str, *, filtered: bool) -> str:
    """Of a listing that may be empty because of what was asked for."""
    return f"There is no {noun} {'like that' if filtered else 'yet'}"


class Listing:
    """A table with a row each, made to fit.

    Where it is too wide, ids are cut to a beginning, which commands take as well; then the columns
    `spare` are left out, in that order, which the last line tells. Text folds only then.
    """

    def __init__(
        self,
        title: str,
        columns: Mapping[str, Cell],
        rows: Iterable[Row],
        *,
        spare: Sequence[str] = (),
        caption: str | None = None,
        empty: str | None = None,
    ) -> None:
        """`empty` is told instead of a table without rows."""
        told = list(rows)
        self._title = title
        self._cells = {name: [cell(row) for row in told] for name, cell in columns.items()}
        self._spare = [name for name in spare if name in columns]
        self._caption = caption
        self._empty = empty

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._empty is not None and not any(self._cells.values()):
            yield Text(self._empty)
            return
        yield self._fitting(console, options)

    def _fitting(self, console: Console, options: ConsoleOptions) -> Table:
        for cells, left_out in self._choices():
            ranges = [_range(console, options, *column) for column in cells.items()]
            widths = _widths(ranges, options.max_width - _GAP * (len(ranges) - 1))
            if widths is not None:
                return self._table(cells, widths, left_out)
        return self._table(cells, [], left_out)

    def _choices(self) -> Iterator[tuple[dict[str, list[RenderableType]], list[str]]]:
        yield self._cells, []
        short = {
            name: [cell.short() if isinstance(cell, Id) else cell for cell in column]
            for name, column in self._cells.items()
        }
        for count in range(len(self._spare) + 1):
            left_out = self._spare[:count]
            yield {name: short[name] for name in short if name not in left_out}, left_out

    def _table(
        self,
        cells: Mapping[str, Sequence[RenderableType]],
        widths: Sequence[int],
        left_out: Sequence[str],
    ) -> Table:
        table = new_table(self._title, *cells)
        for column, width in zip(table.columns, widths, strict=False):
            column.width = width
        for row in zip(*cells.values(), strict=True):
            table.add_row(*row)
        told = [self._caption] if self._caption else []
        if left_out:
            names = ", ".join(name.removeprefix("#") for name in left_out)
            told.append(f"Too narrow for {names}; --json has all.")
        table.caption = "\n".join(told) or None
        return table


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


def _range(
    console: Console, options: ConsoleOptions, name: str, cells: Sequence[RenderableType]
) -> Measurement:
    """What a column needs, and what it could use."""
    head = len(name.removeprefix("#")) if name != "#" else 1
    found = [Measurement.get(console, options.update(max_width=10_000), cell) for cell in cells]
    most = max([head, *(each.maximum for each in found)])
    if name.startswith("#") or name in _WHOLE:
        return Measurement(most, most)
    least = max(
        [
            head,
            *(
                min(each.minimum, _FOLDS_AT) if isinstance(cell, Text) else each.minimum
                for cell, each in zip(cells, found, strict=True)
            ),
        ]
    )
    return Measurement(least, most)


def _widths(ranges: Sequence[Measurement], room: int) -> list[int] | None:
    """What each needs, and of the rest an equal share to those that could use more; None where
    there is not even room for what they need."""
    widths = [each.minimum for each in ranges]
    rest = room - sum(widths)
    if rest < 0:
        return None
    by_wish = sorted(range(len(ranges)), key=lambda place: ranges[place].span)
    for done, place in enumerate(by_wish):
        more = min(ranges[place].span, rest // (len(ranges) - done))
        widths[place] += more
        rest -= more
    return widths
