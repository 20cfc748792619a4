"""What the estimator is worth beside baselines."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from app.terminal.cells import Row, plain, three_decimals
from app.terminal.layout import new_table
from app.words import counted, factor, percent

_ORDER_HEADS = ("#weighted tau", "#regret, first", "#(median)", "#best of 3", "#3 adaptive")
_ORDER_KEYS = (
    "weighted_tau",
    "regret_top1_mean",
    "regret_top1_median",
    "regret_top3_mean",
    "regret_adaptive3_median",
)
_FAULTS_TOLD = 3
_NO_ORDER = "It tells nothing of accuracy: that takes several candidates tried on a task."
_TIME_KEYS = ("seconds_medale", "seconds_medale_after10", "epochs_medale")


def evaluation_report(answer: Row) -> Group:
    """What an estimator is worth beside baselines, the best order of candidates first."""
    groups = answer["group"] if answer["groups"] == 1 else f"{answer['group']}s"
    lines: list[RenderableType] = [
        Text(
            f"{answer['candidates']} candidates on {answer['tasks']} tasks, "
            f"{answer['groups']} {groups} left out in turn."
        )
    ]
    if answer["left_out"]:
        first = "; ".join(
            f"row {e['row']}, {e['column']}: {e['reason']}"
            for e in answer["left_out"][:_FAULTS_TOLD]
        )
        told = f"{counted(len(answer['left_out']), 'fault')} in rows left out: {first}"
        more = len(answer["left_out"]) - _FAULTS_TOLD
        lines.append(Text(f"{told}; and {more} more" if more > 0 else told, "yellow"))
    rows = {"this estimator": answer, **answer["baselines"]}
    ordered = {name: row for name, row in rows.items() if row["weighted_tau"] is not None}
    orders = new_table(
        "Order of candidates",
        "by",
        *_ORDER_HEADS,
    )
    for name, row in sorted(ordered.items(), key=lambda item: -item[1]["weighted_tau"]):
        orders.add_row(
            plain(name.replace("_", " ")),
            *(three_decimals(row[key]) for key in _ORDER_KEYS),
            style="bold" if row is answer else "",
        )
    silent = [name for name in rows if name not in ordered and rows[name]["seconds_medale"] is None]
    orders.caption = "Regrets in percentage points below the best candidate; lower is better." + (
        f"\nThe table cannot tell: {', '.join(silent).replace('_', ' ')}." if silent else ""
    )
    if ordered:
        lines += [Text(), orders, Text(), *(Text(line) for line in _accuracy_in_words(answer))]
    else:
        lines.append(Text(_NO_ORDER))
    timed = {name: row for name, row in rows.items() if row["seconds_medale"] is not None}
    if timed:
        times = new_table(
            "Time of a run, median error in natural logarithms",
            "by",
            "#seconds",
            "#after 10 outcomes",
            "#epochs",
        )
        for name, row in sorted(timed.items(), key=lambda item: item[1]["seconds_medale"]):
            times.add_row(
                plain(name.replace("_", " ")),
                *(three_decimals(row[key]) for key in _TIME_KEYS),
                style="bold" if row is answer else "",
            )
        if answer["seconds_coverage90_mean"] is not None:
            times.caption = (
                f"90% intervals, a factor of {answer['seconds_factor90_median']:.1f} up or down, "
                f"cover {percent(answer['seconds_coverage90_mean'])} of runs."
            )
        lines += [Text(), times]
    lines += [Text(), *(Text(line) for line in _differences_in_words(answer))]
    return Group(*lines)


def estimator_report(answer: Row) -> Group:
    """The estimator that serves, in words and two tables."""
    lines: list[RenderableType] = []
    if answer["refused"]:
        refused = answer["refused"]
        lines.append(Text(f"Version {refused['version']} was refused. {refused['reason']}", "red"))
    if answer["pending"]:
        lines.append(Text("Outcomes changed since; a worker will fit a new one.", "yellow"))
    if answer["version"] is None:
        return Group(*lines, Text("No outcomes have been reported: nothing was fitted yet."))
    lines.append(
        Text(
            f"Version {answer['version']} of {answer['created_at'][:16].replace('T', ' ')}: "
            f"{counted(answer['outcomes'], 'outcome')} of "
            f"{counted(answer['candidates'], 'candidate')} on {counted(answer['tasks'], 'task')}. "
            f"{answer['reason']}"
        )
    )
    accuracy = answer["accuracy"]
    if accuracy is not None:
        rows = {"this estimator": accuracy["summary"], **accuracy["baselines"]}
        ordered = {name: row for name, row in rows.items() if row["weighted_tau"] is not None}
        table = new_table("Order of candidates, each task left out", "by", *_ORDER_HEADS)
        for name, row in ordered.items():
            table.add_row(
                plain(name.replace("_", " ")), *(three_decimals(row[k]) for k in _ORDER_KEYS)
            )
        lines += [Text(), table] if ordered else [Text(_NO_ORDER)]
    if answer["corrections"]:
        table = new_table(
            "Off by a factor of, median", "of", "#as counted", "#corrected", "#runs", "#tasks"
        )
        for name, row in answer["corrections"].items():
            table.add_row(
                plain(name),
                *(factor(row[key]) for key in ("counted_medale", "corrected_medale")),
                f"{row['n_runs']:.0f}",
                f"{row['n_tasks']:.0f}",
            )
        lines += [Text(), table]
    for name, row in answer["tracked"].items():
        says = (
            f"90% intervals of {name} held {percent(row['coverage'])} of "
            f"{counted(row['n_outcomes'], 'outcome')} on {counted(row['n_tasks'], 'task')} that "
            "came after them"
        )
        lines.append(
            Text(f"{says}: too few by more than chance.", "red")
            if row["drifting"]
            else Text(f"{says}.")
        )
    return Group(*lines)


def _accuracy_in_words(answer: Row) -> Iterable[str]:
    if answer["accuracy_medae"] is not None:
        yield (
            f"Accuracy of a new task is missed by {answer['accuracy_medae']:.1f} points, half of "
            "the time by less."
        )
    if answer["coverage90_mean"] is None:
        yield f"Intervals: uncalibrated; they take 10 {answer['group']}s or more."
    else:
        yield (
            f"90% intervals, {answer['width90_median']:.0f} points wide, cover "
            f"{percent(answer['coverage90_mean'])} of outcomes; of the worst task "
            f"{percent(answer['coverage90_worst_task'])}."
        )


def _differences_in_words(answer: Row) -> Iterable[str]:
    told = {name: each for name, each in answer["paired"].items() if each is not None}
    sure = {name: each for name, each in told.items() if each["low"] > 0 or each["high"] < 0}
    for name, difference in sure.items():
        yield (
            f"{name.replace('_', ' ')}: {difference['difference']:+.3f} "
            f"[{difference['low']:+.3f}, {difference['high']:+.3f}] against "
            f"{difference['baseline'].replace('_', ' ')}."
        )
    if told:
        which = "Other differences" if sure else "Differences"
        yield f"{which} to outcome prior and per-model median time may be chance (95%)."
