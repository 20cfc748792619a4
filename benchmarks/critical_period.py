"""Asks when a learner must see clearly: images blurred for a while, early or late.

    python -m benchmarks.critical_period
    python -m benchmarks.critical_period --plot docs/critical-period.svg

Two experiments of Achille, Rovere and Soatto, "Critical learning periods in deep networks", ICLR
2019, on Fashion-MNIST from a package, from random weights. A deficit: images are blurred for the
first k epochs, then clear for as many epochs in every run; final accuracy against k. A window:
blurred for some epochs from epoch k, clear before and after, and as many clear epochs again in
every run; what is lost against k. Means over seeds with their standard errors; a run without blur
and with the same number of epochs is what each is held against. Runs are kept under --cache-dir,
--shard shares them. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.cells import made
from benchmarks.learning.clothes import Clothes, clothes
from benchmarks.learning.spread import mean_and_error
from benchmarks.learning.training import Look, learn, steps_an_epoch
from benchmarks.quality.shards import shard

DEFICITS = (0, 5, 10, 20, 40)
WINDOWS = (0, 5, 10, 20, 30)
WINDOW = 10
CLEAR = 40
"""Epochs without blur, after a deficit or around a window."""


@dataclass(frozen=True, slots=True)
class Blur:
    """In the epochs start:stop of `epochs`."""

    start: int
    stop: int
    epochs: int

    def __call__(self, epoch: int) -> bool:
        return self.start <= epoch < self.stop

    @property
    def name(self) -> str:
        return f"blur-{self.start}-{self.stop}-of-{self.epochs}"


def blurs() -> list[Blur]:
    deficits = [Blur(0, k, k + CLEAR) for k in DEFICITS]
    windows = [Blur(k, k + WINDOW, WINDOW + CLEAR) for k in WINDOWS]
    clear = [Blur(0, 0, k + CLEAR) for k in {*DEFICITS, WINDOW}]
    return sorted({*deficits, *windows, *clear}, key=lambda blur: (blur.epochs, blur.start))


def figures(runs: Callable[[Blur], list[list[Look]]]) -> dict[str, Any]:
    """Accuracy lost against a run that always saw clearly, seed by seed, in points."""

    def lost(blur: Blur) -> list[float]:
        pairs = zip(runs(blur), runs(Blur(0, 0, blur.epochs)), strict=True)
        points = [100 * (clear[-1].accuracy - run[-1].accuracy) for run, clear in pairs]
        return [round(number, 2) for number in mean_and_error(points)]

    return {
        "lost_by_deficit_until": {k: lost(Blur(0, k, k + CLEAR)) for k in DEFICITS if k},
        "lost_by_window_from": {k: lost(Blur(k, k + WINDOW, WINDOW + CLEAR)) for k in WINDOWS},
        "clear_accuracy": round(
            100 * float(np.mean([run[-1].accuracy for run in runs(Blur(0, 0, CLEAR))])), 2
        ),
    }


def plot(path: Path, found: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure((6.4, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for place, name, label in (
        (axes[0], "lost_by_deficit_until", "blurred until epoch"),
        (axes[1], "lost_by_window_from", f"blurred for {WINDOW} epochs from epoch"),
    ):
        means, errors = zip(*found[name].values(), strict=True)
        place.errorbar(list(found[name]), means, errors, color="#2a5bb4", capsize=3, marker="o")
        place.axhline(0, color="#888888", lw=0.8)
        place.set_xlabel(label)
    axes[0].set_ylabel("accuracy lost in the end, points")
    figure.savefig(path)


def run_of(data: Clothes, directory: Path, blur: Blur, seed: int) -> list[Look]:
    epoch = steps_an_epoch(data)
    ends = range(0, blur.epochs * epoch + 1, 5 * epoch)
    return made(
        directory / f"{blur.name}-{len(data.labels)}-seed-{seed}.json",
        partial(learn, data, seed, blur.epochs, ends, is_blurred=blur),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/learning"))
    parser.add_argument("--packages", type=Path, default=Path(".cache/reference"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--learnt", type=int, default=4000, help="images to learn from")
    parser.add_argument("--judged", type=int, default=4000)
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args(arguments)
    data = clothes(options.packages, options.learnt, options.judged)
    index, shards = options.shard
    cells = [(seed, blur) for seed in range(options.seeds) for blur in blurs()]
    for seed, blur in cells[index - 1 :: shards]:
        run_of(data, options.cache_dir, blur, seed)
    if shards > 1:
        return
    found = figures(
        lambda blur: [run_of(data, options.cache_dir, blur, seed) for seed in range(options.seeds)]
    )
    for name, rows in found.items():
        if isinstance(rows, dict):
            print(name.replace("_", " "))
            for k, (mean, error) in rows.items():
                print(f"{k:5} epochs  {mean:6.2f} points ({error:.2f})")
    if options.plot:
        plot(options.plot, found)
    print(json.dumps({"seeds": options.seeds, **found}))


if __name__ == "__main__":
    main()
