"""Tasks by their names, and names that several have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from app import terminal
from app.client import Client
from app.words import counted

_FEW = 50
"""Names that are asked for one by one."""


def find_tasks(client: Client, references: Sequence[str]) -> Iterator[str]:
    """The id of each, as `find_task` finds it."""
    known = _listed(client) if len(set(references)) > _FEW else {}
    for reference in references:
        if reference not in known:
            known[reference] = client.find_task(reference)["id"]
        yield known[reference]


def _listed(client: Client) -> dict[str, str]:
    """Ids by themselves, and by names that only one task of yours has, or else of the library."""
    ids: dict[str, str] = {}
    named: dict[str, str] = {}
    for library in (True, None):
        tasks = list(client.pages("/v1/tasks", library=library, limit=200))
        times = Counter(task["name"] for task in tasks)
        named = {name: task_id for name, task_id in named.items() if name not in times}
        named |= {task["name"]: task["id"] for task in tasks if times[task["name"]] == 1}
        ids |= {task["id"]: task["id"] for task in tasks}
    return named | ids


def tell_of_namesakes(client: Client, task: dict[str, Any]) -> None:
    """Of others of the task's name, by which nobody can ask any more."""
    name, task_id = task["name"], task["id"]
    listed = client.pages("/v1/tasks", q=name, status="ready", limit=200)
    ids = [each["id"] for each in listed if each["name"] == name and each["id"] != task_id]
    if ids:
        shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        terminal.err.print(
            terminal.plain(
                f"{counted(len(ids), 'other task')} of yours {'is' if len(ids) == 1 else 'are'} "
                f"called {name!r} too ({shown}): only ids tell them apart. `task2vec change "
                f"{task_id[:8]} --name ...` calls it otherwise, `task2vec delete` deletes one."
            ),
            style="yellow",
            soft_wrap=True,
        )
