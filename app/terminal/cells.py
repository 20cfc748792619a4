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
SHORT_ID = 8


def plain(value: object) -> Text:
    """Text that came from elsewhere: no markup, no control characters, no line breaks."""
    text = "-" if value is None else str(value)
    return Text("".join(letter if letter.isprintable() else " " for letter in text))


def state(value: str) -> Text:
    return Text(value, style="red" if value in _BAD else _FINAL_STYLES.get(value, "cyan"))


class Unbroken:
    """Text that takes the room it needs."""

    def __init__(self, text: str) -> None:
        self._text = plain(text)

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        yield self._text

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        return Measurement(len(self._text), len(self._text))


class Id(Unbroken):
    def short(self) -> Unbroken:
        """Its beginning, which tells it from others as well in all but the largest stores."""
        return Unbroken(self._text.plain[:SHORT_ID])


class CandidateName:
    """`network.pretraining`, on one line where there is room, else with a line for each."""

    def __init__(self, name: str) -> None:
        network, dot, pretraining = plain(name).plain.partition(".")
        self._network, self._pretraining = Text(network), Text(dot + pretraining, style="dim")

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        lengths = len(self._network), len(self._pretraining)
        return Measurement(max(lengths), sum(lengths))

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        whole = self._network + self._pretraining
        yield from (
            [whole] if len(whole) <= options.max_width else [self._network, self._pretraining]
        )


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


def minute(moment: str | None) -> Unbroken:
    """Of a time in ISO 8601, told in its own zone."""
    return Unbroken("-" if moment is None else moment[:16].replace("T", " "))


def id_or_name(told: str | None) -> Id | Text:
    """The id of something here, or what others call it."""
    return Id(told) if told and re.fullmatch("[0-9a-f]{32}", told) else plain(told)


def seconds_taken(seconds: float | None) -> Text:
    return Text("-" if seconds is None else words.duration(seconds))
