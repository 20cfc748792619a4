"""Follows the information in a network's weights while it learns from nothing.

    python -m benchmarks.information_trace
    python -m benchmarks.information_trace --plot docs/information.svg

The trace of the Fisher information of all weights, after every epoch and more often in the first
two, beside loss and accuracy on
images that are not learnt from (Fashion-MNIST, from a package), for several seeds. The experiment
is that of Achille, Rovere and Soatto, "Critical learning periods in deep networks", ICLR 2019: they
see it rise first, and then fall while accuracy on new images goes on rising. Means over seeds, with
their standard error. Runs are kept under --cache-dir. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.learning.cells import made
from benchmarks.learning.clothes import clothes
from benchmarks.learning.spread import mean_and_error
from benchmarks.learning.training import learn, steps_an_epoch

Array = npt.NDArray[Any]


def looks(steps_an_epoch: int, epochs: int) -> list[int]:
    """Steps: 0, powers of two within two epochs, and the end of every epoch."""
    early = [2**k for k in range(30) if 2**k < 2 * steps_an_epoch]
    return sorted({0, *early, *range(steps_an_epoch, epochs * steps_an_epoch + 1, steps_an_epoch)})


def summary(steps: Array, accuracy: Array, information: Array) -> dict[str, Any]:
    """Of (seeds, looks). What is left of the peak in the end, and how much accuracy came after."""
    peaks = information.argmax(axis=1)
    rows = np.arange(len(peaks))
    highest = information[rows, peaks]
    return {
        "peak_step": steps[peaks].tolist(),
        "start_over_peak": _told(information[:, 0] / highest),
        "end_over_peak": _told(information[:, -1] / highest),
        "accuracy_at_peak": _told(accuracy[rows, peaks]),
        "accuracy_at_end": _told(accuracy[:, -1]),
        "accuracy_gained_after_peak": _told(accuracy[:, -1] - accuracy[rows, peaks]),
    }


def _told(values: Array) -> list[float]:
    return [round(number, 4) for number in mean_and_error(values)]


def plot(path: Path, steps: Array, accuracy: Array, information: Array) -> None:
    from matplotlib.figure import Figure

    figure = Figure((6.4, 3.6), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    for axes, values, colour, name in (
        (left, information, "#b4502a", "trace of the Fisher information"),
        (right, 100 * accuracy, "#2a5bb4", "accuracy on new images, %"),
    ):
        mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
        axes.plot(steps, mean, color=colour)
        axes.fill_between(steps, mean - error, mean + error, color=colour, alpha=0.25, lw=0)
        axes.set_ylabel(name, color=colour)
    left.set_xlabel("training steps")
    left.set_xscale("symlog", linthresh=1)
    left.set_ylim(bottom=0)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/learning"))
    parser.add_argument("--packages", type=Path, default=Path(".cache/reference"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learnt", type=int, default=4000, help="images to learn from")
    parser.add_argument("--judged", type=int, default=4000)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args(arguments)
    data = clothes(options.packages, options.learnt, options.judged)
    asked = looks(steps_an_epoch(data), options.epochs)
    runs = [
        made(
            options.cache_dir / f"clear-{options.learnt}-{options.epochs}-seed-{seed}.json",
            partial(learn, data, seed, options.epochs, asked, traced=True),
        )
        for seed in range(options.seeds)
    ]
    steps = np.array(asked)
    accuracy = np.array([[look.accuracy for look in run] for run in runs])
    information = np.array([[look.information for look in run] for run in runs])
    losses = np.array([[look.training_loss for look in run] for run in runs])
    print(" step  training loss  accuracy  information (standard error)")
    for place, step in enumerate(asked):
        if step <= 2 * steps_an_epoch(data) or step % (5 * steps_an_epoch(data)) == 0:
            mean, error = _told(information[:, place])
            print(
                f"{step:5}  {losses[:, place].mean():13.4f}  {accuracy[:, place].mean():8.4f}"
                f"  {mean:11.2f} ({error:.2f})"
            )
    if options.plot:
        plot(options.plot, steps, accuracy, information)
    print(json.dumps({"seeds": options.seeds, **summary(steps, accuracy, information)}))


if __name__ == "__main__":
    main()
