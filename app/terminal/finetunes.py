"""Fine-tuning runs and what their models say of images."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from app.terminal.cells import (
    CandidateName,
    Id,
    Row,
    duration_interval,
    plain,
    share_interval,
    state,
)
from app.terminal.layout import Listing, fact_list, new_table
from app.training.names import WHY
from app.words import counted, duration, percent

MOST_SHOWN = 20
"""Images of an answer that are told one by one."""

HARDEST = 5
"""Classes that a report of a run names."""


def finetune_report(run: Row) -> Group:
    """What a run gave and took, beside what was forecast of it."""
    result, forecast = run["result"], run["forecast"] or {}
    head = fact_list(
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
    table = new_table("Forecast and outcome", "what", "#forecast", "#outcome")
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
    classes = new_table("Classes found least", "class", "#images", "#found", "#right when named")
    for each in hardest:
        precision = "-" if each["precision"] is None else percent(each["precision"])
        classes.add_row(
            plain(each["name"]), str(each["images"]), percent(each["recall"]), precision
        )
    lines += [Text(), classes]
    return Group(*lines)


def finetunes_table(runs: Iterable[Row]) -> Listing:
    """The task of a run stands in its report."""
    return Listing(
        "Fine-tuning runs",
        {
            "run": lambda run: Id(run["id"]),
            "candidate": lambda run: CandidateName(run["candidate"]),
            "recipe": lambda run: plain(run["recipe"]),
            "state": lambda run: state(run["state"]),
            "#accuracy": lambda run: percent(run["curve"][-1]["accuracy"]) if run["curve"] else "-",
        },
        runs,
        spare=("recipe",),
        empty="Nothing was fine-tuned: `task2vec finetune TASK CANDIDATE` does.",
    )


def prediction_report(answer: Row) -> Group:
    """The first images with their classes, what was left out, and what the probabilities are."""
    images, refused = answer["images"], answer["refused"]
    table = new_table("Predictions", "image", "classes")
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
