"""Progress bars, on the stream of errors and only where somebody looks at it."""

from __future__ import annotations

from typing import Any

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
)
from rich.progress import Task as Bar
from rich.text import Text

from app.terminal.cells import Row
from app.terminal.console import err
from app.words import duration


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
