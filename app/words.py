"""Quantities in words, as tables and pages show them: two significant digits, a unit that fits."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from difflib import get_close_matches

SMALLEST_DISTANCE, LARGE_DISTANCE = 0.0001, 1000.0
_FEW_NAMES = 20


def counted(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def share(value: float) -> str:
    """A percentage as exact as it was given, with a decimal at least."""
    told = f"{100 * value:.6g}"
    return f"{told}%" if "." in told else f"{told}.0%"


def distance(value: float) -> str:
    """Four decimals; no positive distance looks like none, and a divergence may be huge."""
    if value >= LARGE_DISTANCE:
        return number(value)
    if 0 < value < SMALLEST_DISTANCE:
        return f"<{SMALLEST_DISTANCE}"
    return "0" if value == 0 else f"{value:.4f}"


def number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.2e}"


def duration(seconds: float) -> str:
    size, unit = time_unit(seconds)
    return f"{two_digits(seconds / size)} {unit}"


def factor(log_error: float) -> str:
    """Up or down, of an error in natural logarithms."""
    return f"{math.exp(log_error):.2f} x"


def money(usd: float) -> str:
    return f"${usd:.2f}" if usd >= 1 else f"${two_digits(usd)}"


def energy(watt_hours: float) -> str:
    if watt_hours >= 1000:
        return f"{two_digits(watt_hours / 1000)} kWh"
    return f"{two_digits(watt_hours)} Wh"


def memory(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit that a duration is told in, and its seconds."""
    for size, unit in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return size, unit
    return 1.0, "s"


def two_digits(value: float) -> str:
    """Two significant digits, never an exponent: estimates carry no more."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 4)}f}"


def ask(count: int) -> str:
    """So many tasks do."""
    return f"{count:,} {'asks' if count == 1 else 'ask'}"


def listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def choices(names: Collection[str], wrong: str) -> str:
    """What could be said instead: any of a few names, of many those that are written like it."""
    if len(names) <= _FEW_NAMES:
        return f"Known are {', '.join(sorted(names))}."
    written: dict[str, list[str]] = {}
    for name in names:  # of a candidate the network alone will do
        for part in dict.fromkeys((name, name.partition(".")[0])):
            written.setdefault(part, []).append(name)
    near = [name for part in get_close_matches(wrong, written, n=3) for name in written[part]]
    meant = list(dict.fromkeys(near))[:3]
    return f"Did you mean {' or '.join(meant)}?" if meant else "No name is written like it."
