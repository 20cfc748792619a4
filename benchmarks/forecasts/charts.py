"""Charts of made-up numbers, as matplotlib draws them: a source of pictures that no package has."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from app.reference.sets import Picture, Pool
from benchmarks.quality.questions import hashed

_INCHES, _DOTS_PER_INCH = 1.6, 80
_COLOUR_MAPS = ("viridis", "magma", "coolwarm", "Greys", "YlGn", "Blues")
_OF_A_KIND = 40
_OF_A_TREND = 110
_POINTS = 40
_DRIFT = 0.2  # of a step's deviation: a tenth of such walks end on the other side

Random = np.random.Generator
Draw = Callable[[Any, Random], None]


def kinds() -> Pool:
    """Six kinds of chart; size, colour and frame are left to chance."""
    return _pool(
        Picture(f"{kind} {number}", _drawn(f"{kind} {number}", draw), {"kind": kind})
        for kind, draw in _KINDS.items()
        for number in range(_OF_A_KIND)
    )


def trends() -> Pool:
    """Random walks that drift upwards or downwards."""
    drifts = {"rising": _DRIFT, "falling": -_DRIFT}
    return _pool(
        Picture(f"{trend} {number}", _drawn(f"{trend} {number}", _walk(drift)), {"trend": trend})
        for trend, drift in drifts.items()
        for number in range(_OF_A_TREND)
    )


def _pool(pictures: Any) -> Pool:
    return Pool(
        f"drawn by matplotlib {matplotlib.__version__}", "public domain", ("charts",), (*pictures,)
    )


def _drawn(key: str, draw: Draw) -> bytes:
    random = np.random.default_rng(hashed("chart", key))
    figure = Figure((_INCHES, _INCHES), dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    draw(axes, random)
    if random.random() < 0.3:
        axes.set_axis_off()
    elif random.random() < 0.5:
        axes.grid(visible=True)
    axes.tick_params(labelsize=random.integers(5, 9))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _colour(random: Random) -> tuple[float, ...]:
    return tuple(random.uniform(0.0, 0.8, 3))


def _bars(axes: Any, random: Random) -> None:
    count = random.integers(3, 9)
    draw = axes.bar if random.random() < 0.6 else axes.barh
    draw(range(count), random.uniform(0.2, 1.0, count), color=_colour(random))


def _lines(axes: Any, random: Random) -> None:
    for _ in range(random.integers(1, 4)):
        axes.plot(random.normal(size=_POINTS).cumsum(), color=_colour(random))


def _points(axes: Any, random: Random) -> None:
    count = random.integers(15, 80)
    axes.scatter(*random.normal(size=(2, count)), s=random.integers(4, 25), color=_colour(random))


def _pie(axes: Any, random: Random) -> None:
    count = random.integers(3, 7)
    hole = {"width": 0.4} if random.random() < 0.4 else {}
    axes.pie(
        random.uniform(0.2, 1.0, count),
        colors=[_colour(random) for _ in range(count)],
        wedgeprops=hole,
    )


def _heat(axes: Any, random: Random) -> None:
    rows, columns = random.integers(3, 10, 2)
    axes.imshow(
        random.random((rows, columns)), cmap=_COLOUR_MAPS[random.integers(len(_COLOUR_MAPS))]
    )


def _boxes(axes: Any, random: Random) -> None:
    count = random.integers(2, 6)
    boxes = axes.boxplot(list(random.normal(size=(count, _POINTS))), patch_artist=True)
    for box in boxes["boxes"]:
        box.set_facecolor(_colour(random))


_KINDS: dict[str, Draw] = {
    "bars": _bars,
    "lines": _lines,
    "points": _points,
    "pie": _pie,
    "heat map": _heat,
    "boxes": _boxes,
}


def _walk(drift: float) -> Draw:
    def draw(axes: Any, random: Random) -> None:
        steps = random.normal(drift, 1.0, _POINTS)
        axes.plot(steps.cumsum(), color=_colour(random))

    return draw
