"""Progress bars, on the stream of errors and only where somebody looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
)
from rich.progress import Task as Bar
from rich.text import Text

from app.terminal.cells import Row, plain
from app.terminal.console import err
from app.words import duration


class Remaining(ProgressColumn):
    """The service's own word on the time left, not an extrapolation of what came over the wire."""

    def render(self, task: Bar) -> Text:
        left = task.fields.get("remaining_seconds")
        return Text("" if left is None or task.finished else f"{duration(left)} left", style="dim")


class Counted(ProgressColumn):
    """Another column, where it is known how much there is."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Bar) -> RenderableType:
        return Text() if task.total is None else self._column(task)


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


@contextmanager
def phases() -> Iterator[Callable[[str, int, int], None]]:
    """Shows the phase that was told last, and its count; of 0, only that it goes on."""
    bars = Progress(
        SpinnerColumn("line"),
        TextColumn("{task.description}", markup=False),
        Counted(BarColumn(bar_width=32)),
        Counted(MofNCompleteColumn()),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )

    def tell(phase: str, done: int, total: int) -> None:
        if [bar.description for bar in bars.tasks] == [phase]:
            bars.update(bars.task_ids[0], completed=done, total=total or None)
            return
        for bar in bars.tasks:
            bars.remove_task(bar.id)
        bars.add_task(phase, completed=done, total=total or None)

    with bars:
        yield tell


def tell_phases(title: str, events: Iterable[Row]) -> None:
    """For a log: a line where a phase of a job begins."""
    phase = None
    for progress in events:
        if progress["phase"] != phase and progress["state"] == "running":
            phase = progress["phase"]
            err.print(plain(f"{title}: {phase}"), soft_wrap=True)


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
