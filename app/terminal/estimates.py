"""Estimates, scores and plans."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.console import Group, RenderableType
from rich.text import Text

from app.terminal.cells import (
    CandidateName,
    Row,
    duration_interval,
    number,
    plain,
    share,
    share_interval,
    share_percent,
    state,
)
from app.terminal.layout import Cell, Listing
from app.words import counted, energy, memory, money, percent

_ON_FRONTIER = "•"
_HERE = "✓"
_SCORES = {"#LogME": "logme", "#H-score": "h_score", "#LFC": "lfc", "#LEEP": "leep"}

# Best first, as app/recommend.py ranks by it.
_EVIDENCE = {
    "accuracy": "predicted accuracy",
    "difficulty": "difficulty of this task",
    "top1_percent": "published ImageNet accuracy (top-1)",
}


def estimates_table(answer: Row, title: str) -> Listing:
    """Without the columns that no row fills. The other intervals are in the JSON."""
    rows = answer["estimates"]
    columns: dict[str, Cell] = {
        "#": lambda row: Text(str(row["rank"])),
        _ON_FRONTIER: lambda row: _mark(_ON_FRONTIER, shown=row["frontier"]),
        _HERE: lambda row: _mark(_HERE, shown=row["weights_here"]),
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
    if not any(row["weights_here"] for row in rows):
        del columns[_HERE]
    signs, quantities = ("#top-1", "#difficulty"), ("#energy", "#memory", "#ridge")
    # Without accuracy, signs of it are what the ranks rest on.
    spare = (*signs, *quantities) if "#accuracy" in columns else (*quantities, *signs)
    told = _what_estimates_are(answer)
    return Listing(title, columns, rows, spare=spare, caption=told, empty=told)


def _what_estimates_are(answer: Row) -> str:
    rows, what_for = answer["estimates"], f"{answer['recipe']} on {answer['device']}"
    if not rows:
        return f"{what_for}: {answer['says']}"
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
        f"with time.{_whose_weights_are_here(rows)}{_what_would_measure_time(answer)}"
    )


def _whose_weights_are_here(rows: Sequence[Row]) -> str:
    if not any(row["weights_here"] for row in rows):
        unknown = any(row["weights_here"] is None for row in rows)
        return "" if unknown else "\nNo worker has their weights: they are fetched when asked for."
    return f"\n{_HERE} its weights are on the worker; others are fetched when asked for."


def _mark(sign: str, *, shown: bool | None) -> Text:
    return Text(sign if shown else "", style="green")


def _what_would_measure_time(answer: Row) -> str:
    if any(row["timed"] or row["calibrated"] for row in answer["estimates"]):
        return ""
    return f"\nTime is counted: `task2vec time {answer['device']}`, on that machine, measures it."


def scores_table(answer: Row, title: str) -> Listing:
    columns: dict[str, Cell] = {
        "candidate": lambda row: CandidateName(row["candidate"]),
        "#ridge": lambda row: (
            state(row["state"]) if row["scores"] is None else share(row["scores"].get("ridge"))
        ),
        "#k-NN": lambda row: share((row["scores"] or {}).get("knn")),
    }
    for head, name in _SCORES.items():
        columns[head] = partial(_score, name)
    columns["#images"] = lambda row: plain(row["n_images"])
    failed = [row for row in answer["scores"] if row["problem"] is not None]
    told = [
        f"{row['candidate']}: {row['problem']['detail']} {row['problem'].get('remedy') or ''}"
        for row in failed
    ]
    return Listing(
        title,
        columns,
        answer["scores"],
        spare=("#images", "#LFC", "#H-score", "#LEEP"),
        caption="\n".join(told) or None,
        empty="No candidate has looked at it: `task2vec score TASK` lets them.",
    )


def _score(name: str, row: Row) -> Text:
    return number((row["scores"] or {}).get(name))


def plan_report(answer: Row, name: str) -> Group:
    lines: list[RenderableType] = [Text(answer["says"], style="bold")]
    if answer["tried"]:
        best_first = sorted(answer["tried"].items(), key=lambda item: -item[1])
        reached = ", ".join(f"{candidate} {percent(value)}" for candidate, value in best_first)
        lines.append(Text(f"Tried: {reached}."))
    columns: dict[str, Cell] = {
        _HERE: lambda row: _mark(_HERE, shown=row["weights_here"]),
        "candidate": lambda row: CandidateName(row["candidate"]),
        "#accuracy": lambda row: share_interval(row["accuracy"]),
        "#is best": lambda row: Text(percent(row["probability_best"])),
        "#time": lambda row: duration_interval(row["seconds"]),
        "#regret*": lambda row: Text(f"{row['expected_regret_points']:.1f}"),
        "#money*": lambda row: Text(money(row["money_usd_by_now"])),
    }
    if answer["target"] is not None:
        columns["#target*"] = lambda row: Text(percent(row["probability_target_by_now"]))
    if not any(row["weights_here"] for row in answer["steps"]):
        del columns[_HERE]
    if answer["steps"]:
        lines += [
            Text(),
            Listing(
                f"Plan for {name}",
                columns,
                answer["steps"],
                spare=("#regret*", "#is best"),
                caption=_what_plans_are(answer),
            ),
        ]
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
        "* Of all tries by then: regret (points below the best candidate, expected), money"
        f"{target}.{_whose_weights_are_here(answer['steps'])}{unknown}"
    )
