"""Tasks, their jobs, neighbours and map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from app.terminal.cells import (
    SHORT_ID,
    Id,
    Row,
    distance,
    minute,
    number,
    plain,
    seconds_taken,
    state,
)
from app.terminal.layout import Cell, Listing, fact_list, none_of
from app.words import ask, counted, duration

MOST_TOLD = 10
MOST_NAMED = 3


def tasks_table(tasks: Iterable[Row], *, filtered: bool) -> Listing:
    return Listing(
        "Tasks",
        {
            "id": lambda task: Id(task["id"]),
            "name": lambda task: plain(task["name"]),
            "status": lambda task: state(task["status"]),
            "#images": lambda task: plain(task["counts"]["images"]),
            "#classes": lambda task: plain(task["counts"]["classes"]),
            "#complexity": lambda task: number(task["complexity"]),
            "tags": lambda task: plain(", ".join(task["tags"])),
        },
        tasks,
        spare=("tags", "#complexity"),
        empty=f"{none_of('task', filtered=filtered)}; `task2vec embed FOLDER` makes one.",
    )


def task_facts(task: Row) -> Table:
    """Without what a task that is not ready has none of."""
    intake = task["intake"] or {}
    facts = {
        "task": task["id"],
        "name": task["name"],
        "status": state(task["status"]),
        "tags": ", ".join(task["tags"]) or None,
        "images": task["counts"]["images"],
        "left out": (
            f"{counted(intake['skipped'], 'file')}; `task2vec intake {task['id'][:SHORT_ID]}` tells"
            if intake.get("skipped")
            else None
        ),
        "classes": task["counts"]["classes"],
        "complexity": _complexity(task),
        "noise floor": task["complexity"] and distance(task["noise_floor"]),
    }
    return fact_list({name: told for name, told in facts.items() if told is not None}, intake)


def _complexity(task: Row) -> Text | None:
    if task["complexity"] is None:
        return None
    told, known = number(task["complexity"]), task["among_library"]
    if known and known["tasks"]:
        of = counted(known["tasks"], "task")
        told += f"; of the library's {of} {ask(known['easier'])} for less"
    return told


def intake_report(intake: Row, task: Row, *, all_files: bool) -> Group:
    """What is wrong with the task, and what was left out, unless all files are asked for."""
    name, summary, problem = plain(task["name"]).plain, intake["summary"], task["problem"]
    lines: list[RenderableType] = []
    if problem:
        told = plain(f"{problem['detail']} {problem['remedy']}").plain
        lines.append(Text(f"{name} ({task['status']}): {told}", style="red"))
    if summary is None:
        return Group(*lines)
    files = [file for file in intake["files"] if all_files or file["status"] == "skipped"]
    images, left_out = counted(summary["used"], "image"), counted(summary["skipped"], "file")
    became = "used" if task["status"] == "ready" else "fit"
    lines.append(Text(f"{images} of {name} {became}, {left_out} left out."))
    lines += [
        Text(plain(warning["message"]).plain, style="yellow") for warning in summary["warnings"]
    ]
    if files:
        lines += [Text(), _files_table("Files" if all_files else "Left out", files)]
    return Group(*lines)


def skipped_files(files: Sequence[Row]) -> Listing:
    """The first of them, before a refusal is told."""
    more = len(files) - MOST_TOLD
    caption = f"and {counted(more, 'file')} more" if more > 0 else None
    return _files_table("Left out", files[:MOST_TOLD], caption)


def _files_table(title: str, files: Iterable[Row], caption: str | None = None) -> Listing:
    return Listing(
        title,
        {
            "file": lambda file: plain(file["path"]),
            "why": lambda file: plain(file["reason"] or "used"),
        },
        files,
        caption=caption,
    )


def embedding_facts(facts: Row, intake: Row) -> Table:
    return fact_list(
        facts
        | {
            "complexity": number(facts["complexity"]),
            "noise_floor": distance(facts["noise_floor"]),
        },
        intake,
    )


def jobs_table(jobs: Iterable[Row], *, filtered: bool) -> Listing:
    return Listing(
        "Jobs",
        {
            "id": lambda job: Id(job["id"]),
            "kind": lambda job: plain(job["kind"].replace("_", " ")),
            "state": lambda job: state(job["state"]),
            "phase": lambda job: plain(job["phase"]),
            "#done": lambda job: plain(f"{job['done']}/{job['total']}" if job["total"] else None),
            "#remaining": lambda job: seconds_taken(job["remaining_seconds"]),
            "task": lambda job: Id(job["task_id"]),
            "asked at": lambda job: minute(job["created_at"]),
        },
        jobs,
        spare=("asked at", "#remaining", "task"),
        empty=f"{none_of('job', filtered=filtered)}; `task2vec embed FOLDER` begins one.",
    )


def job_facts(job: Row) -> Table:
    left, problem = job["remaining_seconds"], job["problem"]
    return fact_list(
        {
            "job": job["id"],
            "task": job["task_id"],
            "state": state(job["state"]),
            "phase": f"{job['phase']} {job['done']}/{job['total']}",
        }
        | ({"remaining": duration(left)} if left is not None else {})
        | ({name: problem.get(name) for name in ("detail", "remedy")} if problem else {})
    )


def neighbours_table(answer: Row, title: str, *, filtered: bool = False) -> Listing:
    rows = answer["neighbours"]
    some_as_near = any(row["distinguishable"] is False for row in rows)
    return Listing(
        f"{title} by exact {answer['metric']} distance",
        {
            "#": lambda row: str(row["rank"]),
            "task": lambda row: plain(row["name"]),
            "#distance": lambda row: (
                distance(row["distance"]) + (" ≈" if row["distinguishable"] is False else "  ")
            ),
            "#noise floor": lambda row: distance(row["noise_floor"]),
            "#images": lambda row: plain(row["images"]),
            "#classes": lambda row: plain(row["classes"]),
            "from": lambda row: plain("reference" if row["library"] else "yours"),
        },
        rows,
        spare=("#noise floor", "#classes", "#images"),
        caption=(
            "≈ the next one may be as near: they differ by less than the noise floor"
            if some_as_near
            else None
        ),
        empty=f"{none_of('other task', filtered=filtered)} to compare it with.",
    )


def atlas_report(answer: Row) -> Group:
    """The clusters, and the tree that their joins make of them."""
    trust = answer["trustworthiness"]
    told = "" if trust is None else f", trustworthiness {trust:.2f} (1 at best, 0.5 by chance)"
    summary = Text(f"{answer['tasks']:,} tasks on the map{told}")
    if not answer["clusters"]:
        return Group(summary, Text("They are too few, or too scattered, to form clusters."))
    clusters = Listing(
        "Clusters",
        {
            "#": lambda cluster: str(cluster["number"] + 1),
            "cluster": lambda cluster: plain(cluster["name"]),
            "#tasks": lambda cluster: str(cluster["tasks"]),
        },
        answer["clusters"],
    )
    nodes = {cluster["number"]: Tree(Text(cluster["name"])) for cluster in answer["clusters"]}
    for place, join in enumerate(answer["dendrogram"], len(nodes)):
        nodes[place] = Tree(Text(f"{join['distance']:.2f}", style="dim"))
        nodes[place].children += [nodes[join["first"]], nodes[join["second"]]]
    return Group(summary, clusters, Text("Joined at a distance of"), nodes[len(nodes) - 1])


def distances_table(names: Sequence[str], answer: Row) -> Listing:
    """Columns bear names where these are few and differ, else the numbers of their rows."""
    named = len(set(names)) == len(names) <= MOST_NAMED
    heads = [f"#{name}" if named else f"#{at}" for at, name in enumerate(names, 1)]
    labels = [name if named else f"{at} {name}" for at, name in enumerate(names, 1)]
    columns: dict[str, Cell] = {"from": lambda row: plain(row["from"])}
    columns |= {f"{head}": partial(_to, at) for at, head in enumerate(heads)}
    rows = [
        {"from": label, "to": row} for label, row in zip(labels, answer["distances"], strict=True)
    ]
    return Listing(f"{answer['metric']} distance", columns, rows, spare=heads[:0:-1])


def _to(at: int, row: Row) -> Text:
    return distance(row["to"][at])
