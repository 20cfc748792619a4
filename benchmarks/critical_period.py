"""Asks when a learner must see clearly: images blurred for a while, early or late.

    python -m benchmarks.critical_period letters letters-steady --plot docs/critical-period.svg
    python -m benchmarks.critical_period clothes
    python -m benchmarks.critical_period letters --device cuda --processes 15

Two experiments of Achille, Rovere and Soatto, "Critical learning periods in deep networks", ICLR
2019, on images from packages, from random weights. A deficit: images are blurred for the first k
epochs, then clear for as many epochs in every run; final accuracy against k. A window: blurred for
some epochs from epoch k, clear before and after, and as many clear epochs again in every run; what
is lost against k. Means over seeds with their standard errors; each is held against a run of the
same seed that never saw a blur, after as many epochs, and once it saw as many clear ones.

`letters`: a residual network, letters with accents of 32 pixels, the rate of learning falling as in
the paper. `letters-steady`: the rate stays, so that what is seen late is not learnt at a lower one.
`clothes`: a network of six layers, Fashion-MNIST. Runs are kept under --cache-dir; without a GPU
those of letters take days. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from app.embedding.probe import choose_device
from benchmarks.learning.cells import made, read
from benchmarks.learning.clothes import clothes
from benchmarks.learning.letters import letters
from benchmarks.learning.networks import plain, residual
from benchmarks.learning.pictures import Pictures
from benchmarks.learning.spread import mean_and_error
from benchmarks.learning.training import BATCH_SIZE, DECAY, Look, learn

LOOKED_AT_EVERY = 5  # epochs
COLOURS = ("#2a5bb4", "#c2571a", "#4c9a2a")


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


@dataclass(frozen=True, slots=True)
class Experiment:
    """`deficits` end after, `windows` start at so many epochs; `window` is how long these last, and
    `clear` the epochs without blur, after a deficit or around a window. `traced`: whether the run
    that never sees a blur is."""

    name: str
    pictures: Callable[[Path, int, int], Pictures]
    learnt: int
    judged: int
    network: Callable[[int], nn.Module]
    deficits: tuple[int, ...]
    windows: tuple[int, ...]
    window: int
    clear: int
    seeds: int
    decay: float = DECAY
    traced: bool = True

    @property
    def steps_an_epoch(self) -> int:
        return -(-self.learnt // BATCH_SIZE)

    @property
    def never(self) -> Blur:
        """As long as any other run, which can be held against its beginning: the rate of learning
        falls alike in all."""
        return Blur(0, 0, max(self.window, *self.deficits) + self.clear)

    def deficit(self, k: int) -> Blur:
        return Blur(0, k, k + self.clear)

    def windowed(self, k: int) -> Blur:
        return Blur(k, k + self.window, self.window + self.clear)

    def blurs(self) -> list[Blur]:
        deficits = [self.deficit(k) for k in self.deficits]
        windows = [self.windowed(k) for k in self.windows]
        return list(dict.fromkeys([self.never, *deficits, *windows]))


LETTERS = Experiment(
    name="letters",
    pictures=letters,
    learnt=5000,
    judged=5000,
    network=residual,
    deficits=(10, 20, 40, 80, 120),
    windows=(0, 5, 10, 20, 30),
    window=10,
    clear=40,
    seeds=5,
)
STEADY = replace(LETTERS, name="letters-steady", decay=1.0, deficits=(10, 20, 40, 80), seeds=3)
CLOTHES = Experiment(
    name="clothes",
    pictures=clothes,
    learnt=4000,
    judged=4000,
    network=plain,
    deficits=(5, 10, 20, 40),
    windows=(0, 5, 10, 20, 30),
    window=10,
    clear=40,
    seeds=2,
    traced=False,
)
EXPERIMENTS = {each.name: each for each in (LETTERS, STEADY, CLOTHES)}


def path_of(experiment: Experiment, directory: Path, blur: Blur, seed: int) -> Path:
    name = f"{blur.name}-{experiment.learnt}-seed-{seed}.json"
    return directory / experiment.name / name


def make(
    experiment: Experiment, data: Pictures, directory: Path, device: str, blur: Blur, seed: int
) -> None:
    torch.set_num_threads(1)
    every = LOOKED_AT_EVERY * experiment.steps_an_epoch
    made(
        path_of(experiment, directory, blur, seed),
        partial(
            learn,
            data,
            seed,
            blur.epochs,
            range(0, blur.epochs * experiment.steps_an_epoch + 1, every),
            network=experiment.network,
            decay=experiment.decay,
            is_blurred=blur,
            traced=experiment.traced and blur == experiment.never,
            device=choose_device(device),
        ),
    )


def make_all(
    experiment: Experiment, packages: Path, directory: Path, device: str, processes: int
) -> None:
    missing = [
        (blur, seed)
        for seed in range(experiment.seeds)
        for blur in experiment.blurs()
        if not path_of(experiment, directory, blur, seed).is_file()
    ]
    if not missing:
        return
    data = experiment.pictures(packages, experiment.learnt, experiment.judged)
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawned) as pool:
        making = [
            pool.submit(make, experiment, data, directory, device, blur, seed)
            for blur, seed in missing
        ]
        for each in making:
            each.result()


def figures(experiment: Experiment, runs: Callable[[Blur], list[list[Look]]]) -> dict[str, Any]:
    """Accuracy lost against a run that always saw clearly, seed by seed, in points."""
    never = [
        {look.step // experiment.steps_an_epoch: look for look in run}
        for run in runs(experiment.never)
    ]

    def lost(blurs: Mapping[int, Blur], epochs: Callable[[Blur], int]) -> dict[int, list[float]]:
        found = {}
        for k, blur in blurs.items():
            pairs = zip(runs(blur), never, strict=True)
            points = [
                100 * (clear[epochs(blur)].accuracy - run[-1].accuracy) for run, clear in pairs
            ]
            found[k] = [round(number, 2) for number in mean_and_error(points)]
        return found

    deficits = {k: experiment.deficit(k) for k in experiment.deficits}
    windows = {k: experiment.windowed(k) for k in experiment.windows}
    accuracies = [100 * run[experiment.clear].accuracy for run in never]
    found: dict[str, Any] = {
        "lost_by_deficit_until": lost(deficits, lambda blur: blur.epochs),
        "lost_by_window_from": lost(windows, lambda blur: blur.epochs),
        "of_as_many_clear_epochs_by_deficit_until": lost(deficits, lambda _: experiment.clear),
        "of_as_many_clear_epochs_by_window_from": lost(windows, lambda _: experiment.clear),
        "clear_accuracy": round(float(np.mean(accuracies)), 2),
        "training_loss_at_most": max(
            float(f"{run[-1].training_loss:.2g}")
            for blur in experiment.blurs()
            for run in runs(blur)
        ),
    }
    if experiment.traced:
        found["information"] = {
            epoch: float(f"{np.mean([run[epoch].information for run in never]):.3g}")
            for epoch in never[0]
        }
    return found


def plot(path: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure((6.4, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    beside = right.twinx()
    for (name, of), colour in zip(found.items(), COLOURS, strict=False):
        for axes, of_what in ((left, "lost_by_deficit_until"), (right, "lost_by_window_from")):
            means, errors = zip(*of[of_what].values(), strict=True)
            axes.errorbar(
                list(of[of_what]), means, errors, color=colour, capsize=3, marker="o", label=name
            )
        if "information" in of:
            last = max(of["lost_by_window_from"]) + LOOKED_AT_EVERY
            shown = {epoch: value for epoch, value in of["information"].items() if epoch <= last}
            beside.plot(list(shown), list(shown.values()), color=colour, lw=0.8, ls=":")
    for axes in (left, right):
        axes.axhline(0, color="#888888", lw=0.8)
    left.set_xlabel("blurred until epoch")
    left.set_ylabel("accuracy lost in the end, points")
    left.legend(frameon=False, fontsize=8)
    right.set_xlabel("blurred for some epochs from epoch")
    beside.set_yscale("log")
    beside.set_ylabel("information without blur (dotted)")
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="+", choices=EXPERIMENTS)
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/learning"))
    parser.add_argument("--packages", type=Path, default=Path(".cache/reference"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, default=1, help="that make runs at once")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args(arguments)
    found = {}
    for name in options.experiments:
        experiment = EXPERIMENTS[name]
        make_all(experiment, options.packages, options.cache_dir, options.device, options.processes)

        def runs(blur: Blur, experiment: Experiment = experiment) -> list[list[Look]]:
            seeds = range(experiment.seeds)
            return [read(path_of(experiment, options.cache_dir, blur, seed)) for seed in seeds]

        found[name] = figures(experiment, runs)
        print(f"\n{name}, {experiment.seeds} seeds: points lost (standard error)")
        for what, rows in found[name].items():
            if "lost" in what or "clear_epochs" in what:
                told = ", ".join(
                    f"{k}: {mean:.1f} ({error:.1f})" for k, (mean, error) in rows.items()
                )
                print(f"{what.replace('_', ' '):44}{told}")
    if options.plot:
        plot(options.plot, found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
