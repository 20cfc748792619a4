"""Which column holds what: the one asked for, else the only one that can be meant."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import InvalidRequest

# Where several columns could be labels, one of these names tells which is.
LABEL_NAMES = frozenset(
    ("label", "labels", "class", "classes", "class_name", "classname", "category", "target", "cls")
)


def choose_column(
    what: str,
    option: str,
    asked: str | None,
    columns: Sequence[str],
    fitting: Sequence[str],
    at: str,
) -> str:
    """Raises InvalidRequest, naming what there is, where `asked` is not among `columns`, or where
    nothing is asked for and not exactly one column is `fitting`."""
    if asked is not None:
        if asked not in columns:
            raise InvalidRequest(
                "column-unknown",
                f"{at} has no column {asked!r}; it has {_named(columns)}.",
                f"Name one of them with {option}.",
            )
        return asked
    if len(fitting) == 1:
        return fitting[0]
    seen = f"{_named(fitting)} could all hold" if fitting else f"none of {_named(columns)} holds"
    raise InvalidRequest(
        "column-ambiguous", f"{at}: {seen} {what}.", f"Name the column with {option}."
    )


def likely_labels(columns: Sequence[str]) -> list[str]:
    """Those with a label's name, or else all."""
    return [name for name in columns if name.lower() in LABEL_NAMES] or list(columns)


def _named(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:12])
    return f"{shown} and {len(columns) - 12} more" if len(columns) > 12 else shown or "no columns"
