"""Values as cells of a table show them."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from app import words
from app.words import percent, time_unit, two_digits

Row = dict[str, Any]

_FINAL_STYLES = {"succeeded": "green", "ready": "green", "cancelled": "yellow"}
_BAD = {"refused", "failed"}


def plain(value: object) -> Text:
    """Text that came from elsewhere: no markup, no control characters, no line breaks."""
    text = "-" if value is None else str(value)
    return Text("".join(letter if letter.isprintable() else " " for letter in text))


def state(value: str) -> Text:
    return Text(value, style="red" if value in _BAD else _FINAL_STYLES.get(value, "cyan"))


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


def three_decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def share_percent(value: float | None) -> Text:
    return Text("-" if value is None else f"{value:.1f}%")


def share(value: float | None) -> Text:
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
