"""What an estimator is fitted to: runs as they went, beside what was counted for them before."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from app.cost.cells import N_HELD_OUT, PROBE_ACCURACY, SHIPPED, Floats
from app.cost.correction import Setting
from app.cost.outcome_table import ENDED_WITHOUT_RESULT, OutcomeTable
from app.cost.predictor import CountedName
from app.cost.score_names import ESTIMATED

SCORES = tuple(f"score_{name}" for name in ESTIMATED)
COUNTED: tuple[CountedName, ...] = ("seconds", "energy_wh", "memory_mib")
_NAMES = ("task", "model", "recipe", "device", "metric", "stop_reason")
_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    **dict.fromkeys(_NAMES, pl.String),
    "value": pl.Float64,
    N_HELD_OUT: pl.Float64,
    PROBE_ACCURACY: pl.Float64,
    **dict.fromkeys(SCORES, pl.Float64),
    **dict.fromkeys(COUNTED, pl.Float64),
    **{f"counted_{name}": pl.Float64 for name in COUNTED},
}


_NOT_MEASURED = dict.fromkeys([*COUNTED, *(f"counted_{name}" for name in COUNTED)])


@dataclass(frozen=True, slots=True)
class Evidence:
    """`runs`: names, `value` (null where a run failed) and on how many images, the probe's accuracy
    on the task, what the candidate's features told of it (SCORES), seconds, Wh and MiB as measured,
    and the same as they were counted (`counted_*`); null where nobody measured or counted."""

    runs: pl.DataFrame

    @classmethod
    def of(cls, rows: Iterable[dict[str, object]]) -> Evidence:
        """Columns that a row lacks are null."""
        return cls(pl.DataFrame(list(rows), schema=_SCHEMA))

    @classmethod
    def from_parquet(cls, content: bytes) -> Evidence:
        return cls.of(pl.read_parquet(io.BytesIO(content)).to_dicts())

    @classmethod
    def shipped(cls, path: Path, candidates: Collection[str]) -> Evidence:
        """Of these candidates in the outcome table that comes with the service; none where it is
        not there."""
        if not path.exists():
            return cls.of([])
        told = pl.read_csv(path, schema_overrides=_SCHEMA)
        told = told.filter(pl.col("model").is_in(list(candidates))).with_columns(
            task=pl.lit(SHIPPED) + pl.col("task"),
            stop_reason=pl.col("stop_reason").fill_null(""),
            **{name: pl.lit(None, dtype=pl.Float64) for name in COUNTED},
        )
        return cls.of(told.select(name for name in _SCHEMA if name in told.columns).to_dicts())

    def shared(self, tenant: str, candidates: Collection[str]) -> Evidence:
        """What others may learn from a tenant's: what candidates that everybody has came to, on
        tasks without names, and nothing of machines."""

        def nameless(task: str) -> str:
            return f"{_mark(tenant)}:{_mark(f'{tenant} {task}')}"

        told = self.runs.filter(pl.col("model").is_in(list(candidates)))
        return Evidence.of(
            {**row, "task": nameless(row["task"]), "device": "", N_HELD_OUT: None, **_NOT_MEASURED}
            for row in told.iter_rows(named=True)
        )

    def of_others(self, tenant: str) -> Evidence:
        """Of shared evidence what is not the tenant's own, to stand in as what ships does."""
        others = self.runs.filter(~pl.col("task").str.starts_with(f"{_mark(tenant)}:"))
        return Evidence(others.with_columns(task=pl.lit(SHIPPED) + pl.col("task")))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_parquet()).hexdigest()

    def beside(self, other: Evidence) -> Evidence:
        return Evidence(pl.concat([self.runs, other.runs]))

    def to_parquet(self) -> bytes:
        buffer = io.BytesIO()
        self.runs.write_parquet(buffer, compression="zstd")
        return buffer.getvalue()

    def finished(self) -> OutcomeTable | None:
        """The runs that ended with a value; None where none did."""
        ended = ~pl.col("stop_reason").is_in(ENDED_WITHOUT_RESULT)
        runs = self.runs.filter(pl.col("value").is_not_null() & ended)
        if runs.is_empty():
            return None
        told = tuple(name for name in SCORES if runs[name].is_not_null().any())
        return OutcomeTable(runs, tuple(range(1, len(runs) + 1)), told, (), runs.select(_NAMES))

    def ratios(self, name: CountedName) -> tuple[list[Setting], Floats]:
        """Of every run that was not broken off: its setting, and log(measured / counted), natural;
        nan where either is unknown."""
        runs = self.runs.filter(~pl.col("stop_reason").is_in(ENDED_WITHOUT_RESULT))
        settings = [Setting(**row) for row in runs.select(Setting.__slots__).iter_rows(named=True)]
        measured, counted = (
            runs[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            for column in (name, f"counted_{name}")
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return settings, np.log(measured) - np.log(counted)


def _mark(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
