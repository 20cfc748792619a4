"""Estimates, scores and plans."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.terminal.cells import (
    CandidateName,
    Row,
    duration_interval,
    number,
    share,
    share_interval,
    share_percent,
    state,
)
from app.terminal.layout import new_table
from app.words import counted, energy, memory, money, percent

_ON_FRONTIER = "•"

# Best first, as app/recommend.py ranks by it.
_EVIDENCE = {
    "accuracy": "predicted accuracy",
    "difficulty": "difficulty of this task",
    "top1_percent": "published ImageNet accuracy (top-1)",
}


def estimates_table(answer: Row, title: str) -> Table:
    """Without the columns that no row fills. The other intervals are in the JSON."""
    rows = answer["estimates"]
    columns: dict[str, Callable[[Row], RenderableType]] = {
        "#": lambda row: Text(str(row["rank"])),
        _ON_FRONTIER: lambda row: Text(_ON_FRONTIER if row["frontier"] else "", style="green"),
        "candidate": lambda row: CandidateName(row["candidate"]),
        "#accuracy": lambda row: share_interval(row["accuracy"]),
        "#difficulty": lambda row: number(row["difficulty"]),
        "#ridge": lambda row: share(row["ridge_accuracy"]),
        "#top-1": lambda row: share_percent(row["top1_percent"]),
        "#time": lambda row: duration_interval(row["seconds"]),
        "#money": lambda row: Text(money(row["money_usd"]["typical"])),
        "#energy": lambda row: Text(energy(row["energy_wh"]["typical"])),
        "#memory": lambda row: Text(
            memory(row["memory_mib"]["typical"]), style="" if row["fits"] else "red"
        ),
    }
    for head, name in (("accuracy",) * 2, ("difficulty",) * 2, ("ridge", "ridge_accuracy")):
        if all(row[name] is None for row in rows):
            del columns[f"#{head}"]
    table = new_table(title, *columns)
    for row in rows:
        table.add_row(*(cell(row) for cell in columns.values()))
    table.caption = _what_estimates_are(answer)
    return table


def _what_estimates_are(answer: Row) -> str:
    rows, what_for = answer["estimates"], f"{answer['recipe']} on {answer['device']}"
    if not rows:
        return f"No candidate for {what_for} stays within the limits."
    evidence = {row["evidence"] for row in rows}
    order = (
        ", then by ".join(words for name, words in _EVIDENCE.items() if name in evidence) or "cost"
    )
    until = "" if "accuracy" in evidence else " until outcomes are known"
    last = "; what nothing is known of comes last" if "none" in evidence else ""
    calibrated = "" if all(row["calibrated"] for row in rows) else ", uncalibrated"
    typical = "time and accuracy are" if "accuracy" in evidence else "time is"
    return (
        f"Ranked by {order}{until}{last}.\n"
        f"{_ON_FRONTIER} on the cost frontier: nothing cheaper is as strong.\n"
        f"{what_for}{calibrated}: {typical} typical, low-high; money and energy grow "
        f"with time.{_what_would_measure_time(answer)}"
    )


def _what_would_measure_time(answer: Row) -> str:
    if any(row["timed"] or row["calibrated"] for row in answer["estimates"]):
        return ""
    return f"\nTime is counted: `task2vec time {answer['device']}`, on that machine, measures it."


def scores_table(answer: Row, title: str) -> Table:
    heads = ("candidate", "#ridge", "#k-NN", "#LogME", "#H-score", "#LFC", "#LEEP", "#images")
    table = new_table(title, *heads)
    unknown: list[str] = []
    for row in answer["scores"]:
        scores = row["scores"]
        if scores is None:
            table.add_row(CandidateName(row["candidate"]), state(row["state"]))
            if row["problem"] is not None:
                unknown.append(f"{row['candidate']}: {row['problem']['detail']}")
            continue
        table.add_row(
            CandidateName(row["candidate"]),
            *(share(scores.get(name)) for name in ("ridge", "knn")),
            *(number(scores.get(name)) for name in ("logme", "h_score", "lfc", "leep")),
            str(row["n_images"]),
        )
    table.caption = "\n".join(unknown) or None
    return table


def plan_report(answer: Row, name: str) -> Group:
    lines: list[RenderableType] = [Text(answer["says"], style="bold")]
    if answer["tried"]:
        best_first = sorted(answer["tried"].items(), key=lambda item: -item[1])
        reached = ", ".join(f"{candidate} {percent(value)}" for candidate, value in best_first)
        lines.append(Text(f"Tried: {reached}."))
    columns: dict[str, Callable[[Row], RenderableType]] = {
        "candidate": lambda row: CandidateName(row["candidate"]),
        "#accuracy": lambda row: share_interval(row["accuracy"]),
        "#is best": lambda row: Text(percent(row["probability_best"])),
        "#time": lambda row: duration_interval(row["seconds"]),
        "#regret": lambda row: Text(f"{row['expected_regret_points']:.1f}"),
        "#money": lambda row: Text(money(row["money_usd_by_now"])),
    }
    if answer["target"] is not None:
        columns["#target"] = lambda row: Text(percent(row["probability_target_by_now"]))
    if answer["steps"]:
        table = new_table(f"Plan for {name}", *columns)
        for row in answer["steps"]:
            table.add_row(*(cell(row) for cell in columns.values()))
        table.caption = _what_plans_are(answer)
        lines += [Text(), table]
    return Group(*lines)


def _what_plans_are(answer: Row) -> str:
    calibrated = "" if answer["calibrated"] else ", uncalibrated"
    target = "" if answer["target"] is None else ", and the chance that the target is reached"
    unknown = ""
    if answer["unknown"]:
        unknown = f"\nNothing is known of the accuracy of {counted(answer['unknown'], 'other')}."
    return (
        f"{answer['recipe']} on {answer['device']}{calibrated}, in the order to try them; report "
        "what came of one, and ask again.\n"
        "Of all tries by then: regret (points below the best candidate, expected), money"
        f"{target}.{unknown}"
    )
