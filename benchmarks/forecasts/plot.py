"""Forecasts with their intervals against what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from app.cost.predictor import Interval
from benchmarks.forecasts.measures import kept_back
from benchmarks.forecasts.told import Judged

_COLOURS = {"head_only": "#2a5bb4", "full": "#b4502a"}
_NAMES = {"head_only": "head only", "full": "whole network"}


def plot(path: Path, stages: Mapping[str, Sequence[Judged]]) -> None:
    """A row of two panels for each stage: accuracy, and seconds."""
    figure = Figure((7.6, 3.5 * len(stages)), layout="constrained")
    panels = figure.subplots(len(stages), 2, squeeze=False)
    for (name, judged), (left, right) in zip(stages.items(), panels, strict=True):
        _accuracy(left, [each for each in judged if each.told.accuracy is not None])
        _seconds(right, judged)
        left.set_title(name, loc="left", fontsize=10)
    panels[0][0].legend(loc="lower right", frameon=False, fontsize=8)
    figure.savefig(path)


def _accuracy(axes: Any, judged: Sequence[Judged]) -> None:
    told = [_bounds(each.told.accuracy) for each in judged if each.told.accuracy is not None]
    came = np.array([kept_back(each.run) for each in judged])
    _points(axes, judged, 100 * np.array(told), 100 * came)
    axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="accuracy told, %", ylabel="accuracy reached, %")


def _seconds(axes: Any, judged: Sequence[Judged]) -> None:
    told = np.array([_bounds(each.told.seconds) for each in judged])
    _points(axes, judged, told, np.array([each.run["seconds"] for each in judged]))
    axes.set(xscale="log", yscale="log", xlabel="seconds told", ylabel="seconds taken")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")


def _bounds(interval: Interval) -> tuple[float, float, float]:
    return interval.low, interval.typical, interval.high


def _points(axes: Any, judged: Sequence[Judged], told: Any, came: Any) -> None:
    for recipe, colour in _COLOURS.items():
        rows = [place for place, each in enumerate(judged) if each.run["recipe"] == recipe]
        if not rows:
            continue
        low, typical, high = told[rows].T
        axes.errorbar(
            typical,
            came[rows],
            xerr=(typical - low, high - typical),
            fmt="o",
            ms=3.5,
            lw=0.7,
            color=colour,
            ecolor=(*_rgb(colour), 0.35),
            label=_NAMES[recipe],
        )
    ends = (min(told.min(), came.min()), max(told.max(), came.max()))
    axes.plot(ends, ends, color="#888888", lw=0.8, zorder=0)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
