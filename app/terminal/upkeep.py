"""What an operator looks at: settings, findings, moves, backups."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.terminal.cells import Id, Row, Unbroken, minute, plain, state
from app.terminal.layout import Listing, fact_list, new_table
from app.words import counted


def config_table(items: Iterable[Row]) -> Listing:
    return Listing(
        "Settings",
        {
            "setting": lambda item: plain(item["name"]),
            "value": lambda item: plain(
                item["value"] if isinstance(item["value"], str) else json.dumps(item["value"])
            ),
            "said by": lambda item: (
                plain(item["where"]) if item["where"] else Text("default", style="dim")
            ),
        },
        items,
    )


def check_report(answer: Row) -> Group:
    looked = ", ".join(counted(n, _one_of(kind)) for kind, n in answer["checked"].items())
    lines: list[RenderableType] = [Text(f"Looked at {looked or 'an empty store'}.")]
    for finding in answer["findings"]:
        told = "This is set right." if finding["mended"] else finding["remedy"]
        lines.append(
            Text(f"{finding['detail']} {told}", style="green" if finding["mended"] else "red")
        )
    if not answer["findings"]:
        lines.append(Text("Everything fits together.", style="green"))
    return Group(*lines)


def _one_of(kind: str) -> str:
    """Of a plural: `atlases`, `index rows`."""
    return kind.removesuffix("es") if kind.endswith("ses") else kind.removesuffix("s")


def move_begun(answer: Row) -> Table:
    """What `reindex` set going, and which tasks stay where they are."""
    return fact_list(
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
    spaces = new_table("Spaces", "space", "probe", "#tasks", "#of the library")
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
    left = Listing(
        "Left behind",
        {
            "task": lambda task: Id(task["task_id"]),
            "name": lambda task: plain(task["name"]),
            "state": lambda task: state(task["state"]),
            "why": lambda task: plain(task["detail"]),
        },
        answer["left"],
    )
    return Group(spaces, Text(), left)


def backups_table(backups: Iterable[Row]) -> Listing:
    return Listing(
        "Backups",
        {
            "id": lambda each: Unbroken(each["id"]),
            "made": lambda each: minute(each["made_at"]),
            "of version": lambda each: plain(each["app_version"]),
            "#tasks": lambda each: str(each["tasks"]),
            "#blobs": lambda each: str(each["blobs"]),
            "#missing": lambda each: str(len(each["missing"])),
        },
        backups,
        spare=("made", "of version"),
        empty="There is no backup yet.",
    )


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
    return fact_list({"backup" if name == "id" else name: answer[name] for name in names})
