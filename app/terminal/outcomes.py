"""Outcomes, and what became of a table of them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table
from rich.text import Text

from app.terminal.cells import CandidateName, Row, plain
from app.terminal.layout import fact_list, new_table
from app.words import duration


def import_report(answer: Row) -> Group:
    facts = fact_list(
        {
            "added": answer["added"],
            "already there": answer["already_there"],
            "quarantined": answer["quarantined"],
            "rows refused": answer["refused"],
        }
    )
    if not answer["errors"]:
        return Group(facts)
    errors = new_table("Refused", "#row", "column", "why")
    for error in answer["errors"]:
        errors.add_row(str(error["row"]), plain(error["column"]), plain(error["message"]))
    if answer["more_errors"]:
        errors.caption = f"And {answer['more_errors']} more."
    return Group(facts, Text(), errors)


def outcomes_table(outcomes: Iterable[Row]) -> Table:
    table = new_table(
        "Outcomes", "id", "task", "candidate", "recipe", "#value", "#time", "quarantine"
    )
    for outcome in outcomes:
        seconds = outcome["numbers"].get("seconds")
        table.add_row(
            plain(outcome["id"]),
            plain(outcome["task"]),
            CandidateName(outcome["model"]),
            plain(outcome["recipe"] or None),
            "-" if outcome["value"] is None else f"{outcome['value']:.3f}",
            "-" if seconds is None else duration(seconds),
            Text(plain(outcome["quarantine"] or "").plain, style="yellow"),
        )
    return table
