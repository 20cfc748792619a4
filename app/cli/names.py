"""Names that several tasks have."""

from __future__ import annotations

from typing import Any

from app import terminal
from app.client import Client
from app.words import counted


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
