"""Tasks, their jobs, neighbours and map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from app.terminal.cells import Row, distance, number, plain, state
from app.terminal.layout import fact_list, new_table
from app.words import duration


def tasks_table(tasks: Iterable[Row]) -> Table:
    table = new_table("Tasks", "id", "name", "status", "#images", "#classes", "#complexity", "tags")
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
    return fact_list(
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
    return fact_list(
        facts
        | {
            "complexity": number(facts["complexity"]),
            "noise_floor": distance(facts["noise_floor"]),
        },
        intake,
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


def neighbours_table(answer: Row, title: str) -> Table:
    columns = ("#", "task", "#distance", "#noise floor", "#images", "#classes", "from")
    table = new_table(f"{title} by exact {answer['metric']} distance", *columns)
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
    clusters = new_table("Clusters", "#", "cluster", "#tasks")
    for cluster in answer["clusters"]:
        clusters.add_row(str(cluster["number"] + 1), plain(cluster["name"]), str(cluster["tasks"]))
    nodes = {cluster["number"]: Tree(Text(cluster["name"])) for cluster in answer["clusters"]}
    for place, join in enumerate(answer["dendrogram"], len(nodes)):
        nodes[place] = Tree(Text(f"{join['distance']:.2f}", style="dim"))
        nodes[place].children += [nodes[join["first"]], nodes[join["second"]]]
    return Group(summary, clusters, Text("Joined at a distance of"), nodes[len(nodes) - 1])


def distances_table(names: Sequence[str], answer: Row) -> Table:
    table = new_table(f"{answer['metric']} distance", "from", *(f"#{name}" for name in names))
    for name, row in zip(names, answer["distances"], strict=True):
        table.add_row(plain(name), *(distance(value) for value in row))
    return table
