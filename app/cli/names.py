"""Names that several tasks have."""

from __future__ import annotations

from app import terminal
from app.client import Client
from app.words import counted


def tell_of_namesakes(client: Client, task_id: str) -> None:
    """Of others of the task's name, by which nobody can ask any more."""
    name = client.get(f"/v1/tasks/{task_id}")["name"]
    listed = client.pages("/v1/tasks", q=name, status="ready", limit=200)
    ids = [task["id"] for task in listed if task["name"] == name and task["id"] != task_id]
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
