"""What people see: tables and progress bars. What programs read (`--json`) goes another way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
)
from rich.progress import Task as Bar
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from app import words
from app.training.names import WHY
from app.words import counted, duration, energy, memory, money, percent, time_unit, two_digits

Row = dict[str, Any]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_FINAL_STYLES = {"succeeded": "green", "ready": "green", "cancelled": "yellow"}
_BAD = {"refused", "failed"}
MOST_SHOWN = 20
"""Images of an answer that are told one by one."""
HARDEST = 5
"""Classes that a report of a run names."""
_ON_FRONTIER = "•"
_WHOLE = {
    "status",
    "from",
    "run",
    "setting",
}  # single words: nothing is gained by folding
# Best first, as app/recommend.py ranks by it.
_EVIDENCE = {
    "accuracy": "predicted accuracy",
    "difficulty": "difficulty of this task",
    "top1_percent": "published ImageNet accuracy (top-1)",
}

_ORDER_HEADS = ("#weighted tau", "#regret, first", "#(median)", "#best of 3", "#3 adaptive")
_ORDER_KEYS = (
    "weighted_tau",
    "regret_top1_mean",
    "regret_top1_median",
    "regret_top3_mean",
    "regret_adaptive3_median",
)
_TIME_KEYS = ("seconds_medale", "seconds_medale_after10", "epochs_medale")


def picture(console: Console, title: str) -> str:
    """What was printed, as an SVG that fetches no font from anywhere."""
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.S)


def plain(value: object) -> Text:
    """Text that came from elsewhere: no markup, no control characters, no line breaks."""
    text = "-" if value is None else str(value)
    return Text("".join(letter if letter.isprintable() else " " for letter in text))


def state(value: str) -> Text:
    return Text(value, style="red" if value in _BAD else _FINAL_STYLES.get(value, "cyan"))


def tasks_table(tasks: Iterable[Row]) -> Table:
    table = _table("Tasks", "id", "name", "status", "#images", "#classes", "#complexity", "tags")
    for task in tasks:
        table.add_row(
            plain(task["id"]),
            plain(task["name"]),
            state(task["status"]),
            plain(task["counts"]["images"]),
            plain(task["counts"]["classes"]),
            number(task["complexity"]),
            plain(", ".join(task["tags"])),
        )
    return table


def task_facts(task: Row) -> Table:
    return _facts(
        {
            "task": task["id"],
            "name": task["name"],
            "status": state(task["status"]),
            "images": task["counts"]["images"],
            "classes": task["counts"]["classes"],
            "complexity": number(task["complexity"]),
            "noise floor": distance(task["noise_floor"]),
        },
        task["intake"],
    )


def embedding_facts(facts: Row, intake: Row) -> Table:
    return _facts(
        facts
        | {
            "complexity": number(facts["complexity"]),
            "noise_floor": distance(facts["noise_floor"]),
        },
        intake,
    )


def job_facts(job: Row) -> Table:
    left, problem = job["remaining_seconds"], job["problem"]
    return _facts(
        {
            "job": job["id"],
            "task": job["task_id"],
            "state": state(job["state"]),
            "phase": f"{job['phase']} {job['done']}/{job['total']}",
        }
        | ({"remaining": duration(left)} if left is not None else {})
        | ({name: problem.get(name) for name in ("detail", "remedy")} if problem else {})
    )


def finetune_report(run: Row) -> Group:
    """What a run gave and took, beside what was forecast of it."""
    result, forecast = run["result"], run["forecast"] or {}
    head = _facts(
        {
            "run": run["id"],
            "task": run["task_id"],
            "candidate": plain(run["candidate"]),
            "recipe": f"{run['recipe']} on {run['device']}",
            "state": state(run["state"]),
        }
        | (
            {name: run["problem"].get(name) for name in ("detail", "remedy")}
            if run["problem"]
            else {}
        )
    )
    lines: list[RenderableType] = [head]
    lines += [Text(plain(warning).plain, style="yellow") for warning in run["warnings"]]
    if result is None:
        if run["curve"]:
            last = run["curve"][-1]
            lines.append(
                Text(f"Epoch {last['number']}: {percent(last['accuracy'])} of held-out images.")
            )
        return Group(*lines)
    verdict = result["verdict"]
    table = _table("Forecast and outcome", "what", "#forecast", "#outcome")
    low, high = (f"{100 * end:.0f}" for end in verdict["interval"])
    table.add_row(
        "accuracy",
        share_interval(forecast.get("accuracy")),
        Text.assemble(percent(verdict["accuracy"]), (f" {low}-{high}", "dim")),
    )
    told = forecast.get("seconds")
    table.add_row(
        "time", duration_interval(told) if told else Text("-"), Text(duration(result["seconds"]))
    )
    lines += [
        Text(),
        table,
        Text(
            f"{result['epochs']} epochs, {result['steps']} steps: {WHY[result['ended']]}. "
            f"Judged by {verdict['images']} images that were held out.",
            style="dim",
        ),
    ]
    if result.get("information_says"):  # runs of before say nothing
        lines.append(Text(result["information_says"]))
    judged = [each for each in verdict["classes"] if each["recall"] is not None]
    hardest = sorted(judged, key=lambda each: each["recall"])[:HARDEST]
    classes = _table("Classes found least", "class", "#images", "#found", "#right when named")
    for each in hardest:
        precision = "-" if each["precision"] is None else percent(each["precision"])
        classes.add_row(
            plain(each["name"]), str(each["images"]), percent(each["recall"]), precision
        )
    lines += [Text(), classes]
    return Group(*lines)


def finetunes_table(runs: Iterable[Row]) -> Table:
    """An id can be copied whole; the task's stands in the report of a run."""
    table = _table("Fine-tuning runs", "run", "candidate", "recipe", "state", "#accuracy")
    for run in runs:
        curve = run["curve"]
        table.add_row(
            plain(run["id"]),
            CandidateName(run["candidate"]),
            plain(run["recipe"]),
            state(run["state"]),
            percent(curve[-1]["accuracy"]) if curve else "-",
        )
    return table


def prediction_report(answer: Row) -> Group:
    """The first images with their classes, what was left out, and what the probabilities are."""
    images, refused = answer["images"], answer["refused"]
    table = _table("Predictions", "image", "classes")
    for image in images[:MOST_SHOWN]:
        found = [f"{each['name']} {percent(each['probability'])}" for each in image["classes"]]
        table.add_row(plain(image["name"]), plain(", ".join(found) or None))
    lines: list[RenderableType] = [table]
    if len(images) > MOST_SHOWN:
        lines.append(Text(f"and {counted(len(images) - MOST_SHOWN, 'image')} more", style="dim"))
    lines += [
        Text(plain(f"{file['name']}: {file['reason']}").plain, style="yellow")
        for file in refused[:MOST_SHOWN]
    ]
    if len(refused) > MOST_SHOWN:
        more = f"and {counted(len(refused) - MOST_SHOWN, 'file')} more left out"
        lines.append(Text(more, style="yellow"))
    error = answer["calibration_error"]
    judged = "" if error is None else f"; off by {percent(error)} on the images that judged the run"
    lines += [
        Text(),
        Text(f"Probabilities: {answer['probabilities']}, not calibrated{judged}.", style="dim"),
    ]
    return Group(*lines)


def neighbours_table(answer: Row, title: str) -> Table:
    columns = ("#", "task", "#distance", "#noise floor", "#images", "#classes", "from")
    table = _table(f"{title} by exact {answer['metric']} distance", *columns)
    for row in answer["neighbours"]:
        as_near = row["distinguishable"] is False
        table.add_row(
            str(row["rank"]),
            plain(row["name"]),
            distance(row["distance"]) + (" ≈" if as_near else "  "),
            distance(row["noise_floor"]),
            plain(row["images"]),
            plain(row["classes"]),
            "reference" if row["library"] else "yours",
        )
    if any(row["distinguishable"] is False for row in answer["neighbours"]):
        table.caption = "≈ the next one may be as near: they differ by less than the noise floor"
    return table


def atlas_report(answer: Row) -> Group:
    """The clusters, and the tree that their joins make of them."""
    trust = answer["trustworthiness"]
    told = "" if trust is None else f", trustworthiness {trust:.2f} (1 at best, 0.5 by chance)"
    summary = Text(f"{answer['tasks']:,} tasks on the map{told}")
    if not answer["clusters"]:
        return Group(summary, Text("They are too few, or too scattered, to form clusters."))
    clusters = _table("Clusters", "#", "cluster", "#tasks")
    for cluster in answer["clusters"]:
        clusters.add_row(str(cluster["number"] + 1), plain(cluster["name"]), str(cluster["tasks"]))
    nodes = {cluster["number"]: Tree(Text(cluster["name"])) for cluster in answer["clusters"]}
    for place, join in enumerate(answer["dendrogram"], len(nodes)):
        nodes[place] = Tree(Text(f"{join['distance']:.2f}", style="dim"))
        nodes[place].children += [nodes[join["first"]], nodes[join["second"]]]
    return Group(summary, clusters, Text("Joined at a distance of"), nodes[len(nodes) - 1])


def distances_table(names: Sequence[str], answer: Row) -> Table:
    table = _table(f"{answer['metric']} distance", "from", *(f"#{name}" for name in names))
    for name, row in zip(names, answer["distances"], strict=True):
        table.add_row(plain(name), *(distance(value) for value in row))
    return table


def estimates_table(answer: Row, title: str) -> Table:
    """Without the columns that no row fills. The other intervals are in the JSON."""
    rows = answer["estimates"]
    columns: dict[str, Callable[[Row], RenderableType]] = {
        "#": lambda row: Text(str(row["rank"])),
        _ON_FRONTIER: lambda row: Text(_ON_FRONTIER if row["frontier"] else "", style="green"),
        "candidate": lambda row: CandidateName(row["candidate"]),
        "#accuracy": lambda row: share_interval(row["accuracy"]),
        "#difficulty": lambda row: number(row["difficulty"]),
        "#ridge": lambda row: _share(row["ridge_accuracy"]),
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
    table = _table(title, *columns)
    for row in rows:
        table.add_row(*(cell(row) for cell in columns.values()))
    table.caption = _what_estimates_are(answer)
    return table


def scores_table(answer: Row, title: str) -> Table:
    heads = ("candidate", "#ridge", "#k-NN", "#LogME", "#H-score", "#LFC", "#LEEP", "#images")
    table = _table(title, *heads)
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
            *(_share(scores.get(name)) for name in ("ridge", "knn")),
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
        table = _table(f"Plan for {name}", *columns)
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


def candidates_table(cards: Iterable[Row]) -> Table:
    table = _table("Candidates", "name", "#weights", "#multiply-adds", "#input", "pretraining")
    for card in cards:
        table.add_row(
            CandidateName(card["name"]),
            f"{card['parameters'] / 1e6:.1f} M",
            f"{card['multiply_adds'] / 1e9:.2f} G",
            f"{card['input_size']} px",
            plain(card["pretraining"]),
        )
    return table


def devices_table(cards: Iterable[Row]) -> Table:
    table = _table("Devices", "name", "#peak TFLOP/s", "in", "#memory", "#power", "#USD/h", "dated")
    for card in cards:
        table.add_row(
            plain(card["name"]),
            f"{card['peak_flops'] / 1e12:.1f}",
            plain(card["precision"]),
            memory(card["memory_bytes"] / 2**20),
            f"{card['power_watts']:.0f} W",
            f"{card['price_usd_per_hour']:.2f}",
            plain(card["price_date"]),
        )
    return table


def timings_table(items: Iterable[Row]) -> Table:
    table = _table(
        "Timings",
        *("device", "candidate", "#batch", "#s a step", "#trained/s", "#passed/s", "when"),
    )
    for item in items:
        step, forward = (item[name]["typical"] for name in ("step_seconds", "forward_seconds"))
        table.add_row(
            plain(item["device"]),
            plain(item["candidate"]),
            str(item["batch_size"]),
            f"{step:.3g}",
            f"{item['batch_size'] / step:.3g}",
            f"{item['batch_size'] / forward:.3g}",
            plain(item["created_at"][:10]),
        )
    return table


def recipes_table(cards: Iterable[Row]) -> Table:
    table = _table("Recipes", "name", "scope", "#batch", "#epochs", "description")
    for card in cards:
        batch, epochs = str(card["batch_size"]), str(card["epochs"])
        table.add_row(
            plain(card["name"]), plain(card["scope"]), batch, epochs, plain(card["description"])
        )
    return table


def probes_table(cards: Iterable[Row]) -> Table:
    table = _table("Probes", "name", "#input", "weights from", "pinned", "licence")
    for card in cards:
        table.add_row(
            plain(card["name"]),
            f"{card['input_size']} px",
            plain(card["weights"]["source"].partition(":")[0]),
            plain("yes" if card["pinned"] else "no"),
            plain(card["licence"]),
        )
    return table


def check_report(answer: Row) -> Group:
    looked = ", ".join(f"{count:,} {kind}" for kind, count in answer["checked"].items())
    lines: list[RenderableType] = [Text(f"Looked at {looked or 'an empty store'}.")]
    for finding in answer["findings"]:
        told = "This is set right." if finding["mended"] else finding["remedy"]
        lines.append(
            Text(f"{finding['detail']} {told}", style="green" if finding["mended"] else "red")
        )
    if not answer["findings"]:
        lines.append(Text("Everything fits together.", style="green"))
    return Group(*lines)


def move_begun(answer: Row) -> Table:
    """What `reindex` set going, and which tasks stay where they are."""
    return _facts(
        {
            "probe": answer["probe"],
            "probe digest": answer["probe_digest"],
            "space": answer["space_id"],
            "queued": answer["queued"],
            "moving already": answer["moving"],
            "there": answer["there"],
        }
        | ({"being embedded": ", ".join(answer["busy"])} if answer["busy"] else {})
        | (
            {"without images": ", ".join(answer["without_images"])}
            if answer["without_images"]
            else {}
        )
        | ({} if answer["library_tasks"] else {"library": "none in this space"})
    )


def moves(answer: Row) -> Group:
    """Tasks by space, how far the move is, and what it left behind."""
    spaces = _table("Spaces", "space", "probe", "#tasks", "#of the library")
    for space in answer["spaces"]:
        spaces.add_row(
            plain(space["space_id"]),
            plain(space["probe"]),
            str(space["tasks"]),
            str(space["library_tasks"]),
        )
    waiting = answer["queued"] + answer["running"]
    if waiting:
        spaces.caption = (
            f"Moving: {answer['embedded']} of {answer['embedded'] + waiting} embedded; a tenant's "
            "tasks change over together, after its last."
        )
    if not answer["left"]:
        return Group(spaces)
    left = _table("Left behind", "task", "name", "state", "why")
    for task in answer["left"]:
        left.add_row(
            plain(task["task_id"]), plain(task["name"]), state(task["state"]), plain(task["detail"])
        )
    return Group(spaces, Text(), left)


def import_report(answer: Row) -> Group:
    facts = _facts(
        {
            "added": answer["added"],
            "already there": answer["already_there"],
            "quarantined": answer["quarantined"],
            "rows refused": answer["refused"],
        }
    )
    if not answer["errors"]:
        return Group(facts)
    errors = _table("Refused", "#row", "column", "why")
    for error in answer["errors"]:
        errors.add_row(str(error["row"]), plain(error["column"]), plain(error["message"]))
    if answer["more_errors"]:
        errors.caption = f"And {answer['more_errors']} more."
    return Group(facts, Text(), errors)


def outcomes_table(outcomes: Iterable[Row]) -> Table:
    table = _table("Outcomes", "id", "task", "candidate", "recipe", "#value", "#time", "quarantine")
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
            f"row {e['row']}, {e['column']}: {e['reason']}" for e in answer["left_out"][:3]
        )
        lines.append(Text(f"{len(answer['left_out'])} faults in rows left out: {first}", "yellow"))
    rows = {"this estimator": answer, **answer["baselines"]}
    ordered = {name: row for name, row in rows.items() if row["weighted_tau"] is not None}
    orders = _table(
        "Order of candidates",
        "by",
        *_ORDER_HEADS,
    )
    for name, row in sorted(ordered.items(), key=lambda item: -item[1]["weighted_tau"]):
        orders.add_row(
            plain(name.replace("_", " ")),
            *(_three_decimals(row[key]) for key in _ORDER_KEYS),
            style="bold" if row is answer else "",
        )
    silent = [name for name in rows if name not in ordered and rows[name]["seconds_medale"] is None]
    orders.caption = "Regrets in percentage points below the best candidate; lower is better." + (
        f"\nThe table cannot tell: {', '.join(silent).replace('_', ' ')}." if silent else ""
    )
    lines += [Text(), orders, Text(), *(Text(line) for line in _accuracy_in_words(answer))]
    timed = {name: row for name, row in rows.items() if row["seconds_medale"] is not None}
    if timed:
        times = _table(
            "Time of a run, median error in natural logarithms",
            "by",
            "#seconds",
            "#after 10 outcomes",
            "#epochs",
        )
        for name, row in sorted(timed.items(), key=lambda item: item[1]["seconds_medale"]):
            times.add_row(
                plain(name.replace("_", " ")),
                *(_three_decimals(row[key]) for key in _TIME_KEYS),
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
        table = _table("Order of candidates, each task left out", "by", *_ORDER_HEADS)
        for name, row in rows.items():
            if row["weighted_tau"] is not None:
                table.add_row(
                    plain(name.replace("_", " ")), *(_three_decimals(row[k]) for k in _ORDER_KEYS)
                )
        lines += [Text(), table]
    if answer["corrections"]:
        table = _table(
            "Median error, natural logarithms", "of", "#as counted", "#corrected", "#runs", "#tasks"
        )
        for name, row in answer["corrections"].items():
            table.add_row(
                plain(name),
                _three_decimals(row["counted_medale"]),
                _three_decimals(row["corrected_medale"]),
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
    yield (
        f"Accuracy of a new task is missed by {answer['accuracy_medae']:.1f} points, half of the "
        "time by less."
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
    for name, difference in answer["paired"].items():
        if difference is not None and (difference["low"] > 0 or difference["high"] < 0):
            yield (
                f"{name.replace('_', ' ')}: {difference['difference']:+.3f} "
                f"[{difference['low']:+.3f}, {difference['high']:+.3f}] against "
                f"{difference['baseline'].replace('_', ' ')}."
            )
    yield "Other differences to outcome prior and per-model median time may be chance (95%)."


def config_table(items: Iterable[Row]) -> Table:
    table = _table("Settings", "setting", "value", "said by")
    for item in items:
        value = item["value"] if isinstance(item["value"], str) else json.dumps(item["value"])
        said = plain(item["where"]) if item["where"] else Text("default", style="dim")
        table.add_row(plain(item["name"]), plain(value), said)
    return table


def keys_table(keys: Iterable[Row]) -> Table:
    names = (
        *("id", "prefix", "name", "tenant", "scope"),
        *("created_at", "last_used_at", "expires_at", "revoked_at"),
    )
    table = _table("API keys", *names)
    for key in keys:
        table.add_row(*(plain(key[name]) for name in names))
    return table


def audit_table(events: Iterable[Row]) -> Table:
    names = ("at", "tenant", "actor", "action", "object_id", "address", "status", "problem")
    table = _table("Audit log", *names)
    for event in events:
        table.add_row(*(plain(event[name]) for name in names))
    return table


def tenants_table(tenants: Iterable[Row]) -> Table:
    names = ("tasks", "archive_bytes", "finetunes", "outcomes")
    table = _table("Tenants", "tenant", *(f"#{name.replace('_', ' ')}" for name in names))
    for each in tenants:
        table.add_row(plain(each["tenant"]), *(f"{each[name]:,}" for name in names))
    return table


def backups_table(backups: Iterable[Row]) -> Table:
    names = ("id", "made_at", "app_version")
    table = _table("Backups", *names, "#tasks", "#blobs", "#missing")
    for each in backups:
        counts = (each["tasks"], each["blobs"], len(each["missing"]))
        table.add_row(*(plain(each[name]) for name in names), *map(str, counts))
    return table


def backup_made(answer: Row) -> Group:
    lines: list[RenderableType] = [_backup_facts(answer)]
    if answer["forgotten"]:
        lines.append(Text(f"{answer['forgotten']} older ones were deleted."))
    if answer["missing"]:
        lines.append(
            Text(
                "What it refers to was not there, or held other bytes: "
                f"{', '.join(answer['missing'])}. All else is in it; `task2vec check` says more.",
                style="red",
            )
        )
    return Group(*lines)


def backup_restored(answer: Row) -> Group:
    told = (
        "It is restored. Jobs that were not done run as soon as a worker does."
        if answer["restored"]
        else "It is whole: every part is there and holds the bytes that it did."
    )
    return Group(_backup_facts(answer), Text(told, style="green"))


def _backup_facts(answer: Row) -> Table:
    names = ("id", "made_at", "app_version", "tasks", "blobs")
    return _facts({"backup" if name == "id" else name: answer[name] for name in names})


class Remaining(ProgressColumn):
    """The service's own word on the time left, not an extrapolation of what came over the wire."""

    def render(self, task: Bar) -> Text:
        left = task.fields.get("remaining_seconds")
        return Text("" if left is None or task.finished else f"{duration(left)} left", style="dim")


def progress_bars() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[phase]}", markup=False),
        Remaining(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def upload_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        DownloadColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def show_progress(bars: Progress, bar: Any, progress: Row) -> None:
    """Puts one progress event of a job onto its bar; an ended job shows how it ended.

    One that succeeded is done, whatever its last count was before it ended.
    """
    ended = progress["state"] not in {"queued", "running"}
    done = progress["state"] == "succeeded"
    bars.update(
        bar,
        completed=progress["total"] if done else progress["done"],
        total=progress["total"] or None,
        phase=progress["state"] if ended else progress["phase"],
        remaining_seconds=progress["remaining_seconds"],
    )


class CandidateName:
    """`network.pretraining`, on one line where there is room, else folded at its joints."""

    def __init__(self, name: str) -> None:
        self._network, dot, pretraining = plain(name).plain.partition(".")
        self._pretraining = dot + pretraining

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        joints = (*_pieces(self._network), *_pieces(self._pretraining))
        return Measurement(max(map(len, joints)), len(self._network) + len(self._pretraining))

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        network, pretraining = (Text(self._network), Text(self._pretraining, style="dim"))
        if len(network) + len(pretraining) <= options.max_width:
            yield network + pretraining
            return
        for part in (network, pretraining):
            line = Text(style=part.style)
            for piece in _pieces(part.plain):
                if line and len(line) + len(piece) > options.max_width:
                    yield line
                    line = Text(style=part.style)
                line.append(piece)
            yield line


def _pieces(name: str) -> list[str]:
    return re.findall(r"[^_]*_|[^_]+$", name)


def distance(value: float | None) -> Text:
    return Text("-" if value is None else words.distance(value))


def _three_decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def share_percent(value: float | None) -> Text:
    return Text("-" if value is None else f"{value:.1f}%")


def _share(value: float | None) -> Text:
    return Text("-" if value is None else percent(value))


def number(value: float | None) -> Text:
    return Text("-" if value is None else words.number(value))


def duration_interval(seconds: Row) -> Text:
    size, unit = time_unit(seconds["typical"])
    low, typical, high = (two_digits(seconds[end] / size) for end in ("low", "typical", "high"))
    return Text.assemble(f"{typical} {unit}", (f" {low}-{high}", "dim"))


def share_interval(share: Row | None) -> Text:
    if share is None:
        return Text("-")
    low, typical, high = (f"{100 * share[end]:.0f}" for end in ("low", "typical", "high"))
    return Text.assemble(f"{typical}%", (f" {low}-{high}", "dim"))


def _table(title: str, *columns: str) -> Table:
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


def _facts(facts: Row, intake: Row | None = None) -> Table:
    """Name and value, one a line, then what the intake warned of."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), value if isinstance(value, Text) else plain(value))
    for warning in (intake or {}).get("warnings", []):
        table.add_row("warning", Text(plain(warning["message"]).plain, style="yellow"))
    return table
