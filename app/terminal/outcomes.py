"""Outcomes, and what became of a table of them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group
from rich.text import Text

from app.terminal.cells import (
    CandidateName,
    Id,
    Row,
    id_or_name,
    plain,
    seconds_taken,
    three_decimals,
)
from app.terminal.layout import Cell, Listing, fact_list, none_of

_MADE = (
    "`task2vec finetune` makes one, `task2vec outcomes import` adds those of a table, and "
    "`POST /v1/outcomes` reports one of elsewhere."
)


def import_report(answer: Row) -> Group:
    facts = fact_list(
        {
            "added": answer["added"],
            "already there": answer["already_there"],
            "quarantined": answer["quarantined"],
            "rows refused": answer["refused"],
        }
        | (
            {"columns left alone": ", ".join(answer["ignored_columns"])}
            if answer["ignored_columns"]
            else {}
        )
    )
    if not answer["errors"]:
        return Group(facts)
    errors = Listing(
        "Refused",
        {
            "#row": lambda error: str(error["row"]),
            "column": lambda error: plain(error["column"]),
            "why": lambda error: plain(error["message"]),
        },
        answer["errors"],
        caption=f"And {answer['more_errors']} more." if answer["more_errors"] else None,
    )
    return Group(facts, Text(), errors)


def outcomes_table(outcomes: Iterable[Row], *, filtered: bool) -> Listing:
    rows = list(outcomes)
    columns: dict[str, Cell] = {
        "id": lambda row: Id(row["id"]),
        "task": lambda row: id_or_name(row["task"]),
        "candidate": lambda row: CandidateName(row["model"]),
        "recipe": lambda row: plain(row["recipe"] or None),
        "#value": lambda row: Text(three_decimals(row["value"])),
        "#time": lambda row: seconds_taken(row["numbers"].get("seconds")),
        "quarantine": lambda row: Text(plain(row["quarantine"] or "").plain, style="yellow"),
    }
    if not any(row["quarantine"] for row in rows):
        del columns["quarantine"]
    empty = f"{none_of('outcome', filtered=filtered)}; {_MADE}"
    return Listing("Outcomes", columns, rows, spare=("recipe", "#time"), empty=empty)
