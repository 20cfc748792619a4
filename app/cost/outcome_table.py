"""The outcome table: what fine-tuning runs really gave and took, one run a row, CSV or Parquet.

Only `task, model, metric, value` are required. Every other known column may be missing, or empty in
a row; columns named `score_*` are predictors; any other column is ignored. A row with something in
it that cannot be is left out whole and told of, with its number, its column and the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

import polars as pl

from app.errors import InvalidRequest
from app.words import listed

REQUIRED = ("task", "model", "metric", "value")
TEXT = ("task", "model", "recipe", "device", "stop_reason", "metric")
STOP_REASONS = ("converged", "cap", "failed", "cancelled")
ENDED_WITHOUT_RESULT = ("failed", "cancelled")
SCORE_PREFIX = "score_"
TableKind = Literal["csv", "parquet"]
MEDIA_TYPES: dict[TableKind, str] = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
METRICS = ("accuracy", "balanced_accuracy", "auc", "f1", "average_precision")
"""What the service compares by; a table that is only evaluated may have any metric that rises."""

LOWER_IS_BETTER = ("loss", "error", "perplexity", "rmse", "mae")

MOST_ROWS = 1_000_000
"""Of a Parquet table."""

_EMPTY = ("", "na", "nan", "null", "none")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number of a column can be; `least` itself only where `closed`."""

    least: float
    most: float
    closed: bool
    says: str


_POSITIVE = Bounds(0.0, float("inf"), False, "a number above 0")
_NOT_NEGATIVE = Bounds(0.0, float("inf"), True, "a number of 0 or more")
NUMBERS = {
    "n_train": _POSITIVE,
    "n_held_out": _POSITIVE,
    "batch_size": _POSITIVE,
    "learning_rate": _POSITIVE,
    "momentum": Bounds(0.0, 1.0, True, "a number from 0 to 1"),
    "weight_decay": _NOT_NEGATIVE,
    "max_epochs": _POSITIVE,
    "epochs": _POSITIVE,
    "steps": _POSITIVE,
    "seconds": _POSITIVE,
    "power_watts": _NOT_NEGATIVE,
    "memory_mib": _POSITIVE,
    "probe_accuracy": Bounds(0.0, 1.0, True, "a share from 0 to 1"),
    "value": Bounds(0.0, 1.0, True, "a share from 0 to 1 (write 85.3% as 0.853)"),
}


@dataclass(frozen=True, slots=True)
class RowError:
    """`row` counts rows of data from 1."""

    row: int
    column: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"row {self.row}, {self.column}: {self.reason}"


@dataclass(frozen=True, slots=True)
class OutcomeTable:
    """`runs` has every known column, numbers as float64, text as it stood ("" where none).

    `numbers`      of its rows, as they were counted
    `score_names`  its `score_*` columns, in their order
    `errors`       of rows that were left out
    `names`        the columns of text of every row, left out or not, "" where none
    `ignored`      columns of the file that mean nothing here
    """

    runs: pl.DataFrame
    numbers: tuple[int, ...]
    score_names: tuple[str, ...]
    errors: tuple[RowError, ...]
    names: pl.DataFrame
    ignored: tuple[str, ...] = ()


def read_outcomes(source: Path | IO[bytes], kind: TableKind) -> OutcomeTable:
    """Raises InvalidRequest where that is no such table, or no row of it can be used."""
    try:
        if kind == "parquet":
            raw, columns = _parquet(source)
        else:
            raw = pl.read_csv(source, infer_schema=False)
            columns = raw.columns
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        what = str(error).splitlines()[0]
        raise InvalidRequest(
            "outcomes-unreadable",
            f"The outcomes cannot be read as {'Parquet' if kind == 'parquet' else 'CSV'}: {what}.",
            "Give a CSV table with a header line (it may be gzipped), or Parquet.",
        ) from None
    ignored = tuple(name for name in columns if not _is_known(name))
    return replace(parse_outcomes(raw), ignored=ignored)


def _is_known(column: str) -> bool:
    return column in TEXT or column in NUMBERS or column.startswith(SCORE_PREFIX)


def _parquet(source: Path | IO[bytes]) -> tuple[pl.DataFrame, list[str]]:
    """The columns that count, and the names of all. A small file may say that it holds any number
    of rows."""
    rows = pl.scan_parquet(source)
    n_rows = rows.select(pl.len()).collect().item()
    if n_rows > MOST_ROWS:
        raise InvalidRequest(
            "outcomes-too-many",
            f"The table has {n_rows:,} rows, more than {MOST_ROWS:,}.",
            "Send it in parts.",
        )
    names = rows.collect_schema().names()
    return rows.select([name for name in names if _is_known(name)]).collect(), names


def kind_of(path: Path) -> TableKind:
    return "parquet" if path.suffix == ".parquet" else "csv"


def parse_outcomes(raw: pl.DataFrame) -> OutcomeTable:
    """Check every row. Raises InvalidRequest without the required columns or a usable row."""
    table = check_outcomes(raw)
    if table.runs.is_empty():
        why = f" The first: {table.errors[0]}." if table.errors else ""
        raise InvalidRequest(
            "outcomes-empty", f"No row of the table can be used.{why}", "Mend the rows."
        )
    return table


def check_outcomes(raw: pl.DataFrame) -> OutcomeTable:
    """Check every row; none need be usable. Raises InvalidRequest without the required columns."""
    missing = [name for name in REQUIRED if name not in raw.columns]
    if missing:
        separated = len(raw.columns) == 1 and any(sign in raw.columns[0] for sign in ";\t")
        raise InvalidRequest(
            "outcomes-columns-missing",
            f"The columns {listed(missing)} are missing."
            if len(missing) > 1
            else f"The column {missing[0]} is missing.",
            "Separate its columns by commas."
            if separated
            else f"Give at least {', '.join(REQUIRED)}.",
        )
    scores = tuple(name for name in raw.columns if name.startswith(SCORE_PREFIX))
    as_text = raw.select(_stripped(raw, name) for name in (*TEXT, *NUMBERS, *scores))
    numbers = as_text.with_columns(
        pl.col(name).cast(pl.Float64, strict=False) for name in (*NUMBERS, *scores)
    )
    errors = tuple(sorted(_errors(as_text, numbers, scores), key=lambda e: (e.row, e.column)))
    bad = {error.row - 1 for error in errors}
    kept = [row for row in range(len(raw)) if row not in bad]
    every = numbers.with_columns(pl.col(name).fill_null("") for name in TEXT)
    numbered = tuple(row + 1 for row in kept)
    return OutcomeTable(every[kept], numbered, scores, errors, every.select(TEXT))


def _stripped(raw: pl.DataFrame, name: str) -> pl.Expr:
    if name not in raw.columns:
        return pl.lit(None, dtype=pl.String).alias(name)
    text = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when(~text.str.to_lowercase().is_in(_EMPTY)).then(text).alias(name)


def _errors(
    text: pl.DataFrame, numbers: pl.DataFrame, scores: tuple[str, ...]
) -> Iterator[RowError]:
    def told(rows: pl.Series, column: str, reason: str) -> Iterator[RowError]:
        for row in rows.arg_true():
            value = text[column][int(row)]
            yield RowError(int(row) + 1, column, reason.format(value))

    for name in ("task", "model", "metric"):
        yield from told(text[name].is_null(), name, "is missing")
    unfinished = text["stop_reason"].is_in(ENDED_WITHOUT_RESULT).fill_null(value=False)
    yield from told(
        text["value"].is_null() & ~unfinished, "value", "is missing, and the run did not fail"
    )
    yield from told(
        ~text["stop_reason"].is_in(STOP_REASONS).fill_null(value=True),
        "stop_reason",
        f"{{!r}} is none of {', '.join(STOP_REASONS)}",
    )
    metric = text["metric"].str.to_lowercase()
    falling = metric.str.contains_any(list(LOWER_IS_BETTER)).fill_null(value=False)
    yield from told(falling, "metric", "{!r} falls as a model gets better; give one that rises")
    for name, bounds in NUMBERS.items():
        number = numbers[name]
        low = number >= bounds.least if bounds.closed else number > bounds.least
        inside = low & (number <= bounds.most) & number.is_finite()
        wrong = text[name].is_not_null() & ~inside.fill_null(value=False)
        yield from told(wrong, name, f"{{!r}} is not {bounds.says}")
    for name in scores:
        finite = numbers[name].is_finite().fill_null(value=False)
        yield from told(text[name].is_not_null() & ~finite, name, "{!r} is not a finite number")
