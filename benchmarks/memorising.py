"""Asks whether the information in weights tells a network that learns from one that memorises.

    python -m benchmarks.memorising
    python -m benchmarks.memorising --plot docs/memorising.svg

The default probe's network is fine-tuned by `task2vec finetune`'s own trainer on small public tasks
(64 pixels, at most 120 images), each once with its labels and once with the same labels shuffled,
where there is nothing to learn but the images themselves. The trace of the Fisher information is
taken every other epoch. For what it says at the end, and for what losses say: how often the
shuffled run of a task lies above the true one, and the area under the ROC curve over all runs (0.5
by chance). Runs are kept under --cache-dir. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from app.catalogue import CandidateCard, RecipeCard, get_card
from app.embedding.dataset import LabelledImages
from app.settings import shared_directory
from app.training.finetune import fine_tune
from benchmarks.grid import tasks
from benchmarks.grid.tasks import GridTask

CANDIDATE = "tf_efficientnet_lite0.in1k"
TASKS = (
    *("emoji-categories", "flags-continents", "icons-badges", "letters-serif", "scripts"),
    *("digits", "fashion-kinds", "scenes", "instruments", "emoji-human"),
)
EPOCHS, TRACED_EVERY = 24, 2
CHANGES = {
    "epochs": EPOCHS,
    "learning_rate": 1e-3,
    "batch_size": 16,
    "least_steps_an_epoch": 1,
    "evaluation_share": 0.25,
}
"""Of the recipe `full`: sets this small are learnt by heart in no other way."""

Curve = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """On one task, with its labels or shuffled ones."""

    task: str
    is_shuffled: bool
    curve: Curve

    @property
    def traces(self) -> list[float]:
        return [e["information"] for e in self.curve if e["information"] is not None]


STATISTICS: dict[str, Callable[[Run], float]] = {
    "information at the end": lambda run: run.traces[-1],
    "information at its peak": lambda run: max(run.traces),
    "information left of the peak": lambda run: run.traces[-1] / max(run.traces),
    "epoch of the peak": lambda run: float(np.argmax(run.traces)),
    "training loss at the end": lambda run: run.curve[-1]["training_loss"],
    "held-out loss at the end": lambda run: run.curve[-1]["loss"],
    "held-out loss over training loss": lambda run: (
        run.curve[-1]["loss"] / max(run.curve[-1]["training_loss"], 1e-9)
    ),
}


def curve_of(task: GridTask, is_shuffled: bool) -> Curve:
    learn, models = task.learn, shared_directory("models")
    labels = np.asarray(learn.labels)
    if is_shuffled:
        labels = np.random.default_rng(0).permutation(labels)
    images = LabelledImages(learn.pixels, labels, task.classes, learn.digests, "single_label")
    card = get_card(models, CandidateCard, CANDIDATE).model_copy(
        update={"input_size": tasks.INPUT_SIZE}
    )
    recipe = get_card(models, RecipeCard, "full").model_copy(update=CHANGES)
    with tempfile.TemporaryDirectory() as directory:
        run = fine_tune(
            images,
            card,
            recipe,
            Path(directory),
            device=torch.device("cpu"),
            trace_every=TRACED_EVERY,
        )
    return [asdict(epoch) for epoch in run.curve]


def kept(directory: Path, task: GridTask, is_shuffled: bool) -> Run:
    """Made once."""
    path = directory / f"{task.name}-{'shuffled' if is_shuffled else 'true'}-{EPOCHS}.json"
    if not path.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(curve_of(task, is_shuffled)))
        scratch.replace(path)
        print(path.stem, flush=True)
    return Run(task.name, is_shuffled, json.loads(path.read_text()))


def told(runs: Sequence[Run], statistic: Callable[[Run], float]) -> dict[str, float]:
    """`shuffled_above`: share of tasks; `auc`: share of pairs of a shuffled and a true run in which
    the shuffled one lies above, ties counting half."""
    values = np.array([statistic(run) for run in runs])
    shuffled = np.array([run.is_shuffled for run in runs])
    by_task = {(run.task, run.is_shuffled): value for run, value in zip(runs, values, strict=True)}
    above = [by_task[run.task, True] > by_task[run.task, False] for run in runs if run.is_shuffled]
    n, m = int(shuffled.sum()), int((~shuffled).sum())
    ranks = float(rankdata(values)[shuffled].sum())
    return {
        "shuffled_above": round(float(np.mean(above)), 3),
        "auc": round((ranks - n * (n + 1) / 2) / (n * m), 3),
        "true_median": float(f"{np.median(values[~shuffled]):.4g}"),
        "shuffled_median": float(f"{np.median(values[shuffled]):.4g}"),
    }


def plot(path: Path, runs: Sequence[Run]) -> None:
    from matplotlib.figure import Figure

    figure = Figure((6.4, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for is_shuffled, colour, label in (
        (False, "#2a5bb4", "its labels"),
        (True, "#c2571a", "shuffled"),
    ):
        chosen = [run for run in runs if run.is_shuffled is is_shuffled]
        epochs = [e["number"] for e in chosen[0].curve if e["information"] is not None]
        traces = np.log10(np.array([run.traces for run in chosen]))
        losses = np.array([[e["training_loss"] for e in run.curve] for run in chosen])
        for place, x, lines in (
            (axes[0], epochs, 10**traces),
            (axes[1], [e["number"] for e in chosen[0].curve], losses),
        ):
            place.plot(x, lines.T, color=colour, lw=0.6, alpha=0.35)
            place.plot(x, np.median(lines, axis=0), color=colour, lw=2, label=label)
            place.set_xlabel("epoch")
            place.set_yscale("log")
    axes[0].set_title("information in the weights", fontsize=9)
    axes[1].set_title("training loss", fontsize=9)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/memorising"))
    parser.add_argument("--packages-dir", type=Path, default=Path(".cache/reference"))
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    of_name = {task.name: task for task in tasks.targets(options.packages_dir)}
    runs = [
        kept(options.cache_dir, of_name[name], is_shuffled)
        for name in options.tasks
        for is_shuffled in (False, True)
    ]
    found = {name: told(runs, statistic) for name, statistic in STATISTICS.items()}
    for name, row in found.items():
        print(
            f"{name:34} shuffled above {row['shuffled_above']:.2f} of tasks, AUC {row['auc']:.2f}; "
            f"{row['true_median']:.3g} true, {row['shuffled_median']:.3g} shuffled"
        )
    accuracy = [run.curve[-1]["accuracy"] for run in runs if not run.is_shuffled]
    print(f"{np.median(accuracy):.2f} of held-out images are right with true labels (median)")
    if options.plot:
        plot(options.plot, runs)
    print(json.dumps({"tasks": len(options.tasks), **found}))


if __name__ == "__main__":
    main()
