"""Fine-tunes candidates on tasks that no estimator saw, and holds forecasts against what came.

    python -m benchmarks.forecast                 the runs, some 80 minutes of a core, and figures
    python -m benchmarks.forecast --list          tasks
    python -m benchmarks.forecast --shard 1/2     half of the runs alone, beside another process
    python -m benchmarks.forecast --figures       the figures of what runs there are
    python -m benchmarks.forecast --table FILE.csv      those runs as an outcome table besides
    python -m benchmarks.forecast --plot docs/forecast.svg

The runs are the service's own (app/training/finetune.py) by two of its recipes, from the archive to
the verdict, and are kept under --cache-dir; forecasts are never kept, they are made by the code as
it is. Accuracy is what a run reports, on the few images that it holds out; beside it stands the
accuracy on pictures of the same kind that no run had. One thread a process; seconds are of the
processor, since other work may share the machine, and so no wait for it or for a disk is in them,
though a busy neighbour makes them more. They are forecast for the card cpu-2core, as the service
does where it is told nothing else: its two cores compute about twice as fast as one, and a run's
start-up counts imports there, which a process that goes on does once. Where steps are timed on the
machine (`task2vec time`) forecasts rest on these; both are reported. Memory is the most that the
process held, with all that this benchmark keeps in it, so forecasts without outcomes are too low.

Forecasts are made before any outcome of a user's own, from the shipped ones alone; in order, each
task from those before it, in several orders; and each task from all others. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from app.catalogue import CandidateCard, DeviceCard, ProbeCard, RecipeCard, get_card, load_cards
from app.cost.cells import PROBE_ACCURACY
from app.cost.features import TaskFacts
from app.embedding.probe import load_probe
from app.reference.build import embedded
from app.settings import Settings, shared_directory
from app.store.estimators import shipped
from benchmarks.forecasts import measures
from benchmarks.forecasts.cells import Cell, Shelf, planned, read
from benchmarks.forecasts.measures import Baselines, kept_back
from benchmarks.forecasts.plot import plot
from benchmarks.forecasts.tasks import UnseenTask, unseen
from benchmarks.forecasts.told import METRIC, Catalogue, Forecaster, Judged, Known, Run
from benchmarks.quality.questions import hashed
from benchmarks.quality.shards import shard

CANDIDATES = tuple(f"tf_efficientnet_lite{size}.in1k" for size in (0, 1, 2))
ROUNDS = (("head_only", 3), ("full", 1))
"""Recipes, and with how many of the candidates each task is run by them."""

DEVICE = "cpu-2core"
STEPS_OF_EVIDENCE = ((0, 0), (1, 2), (3, 5), (6, 8), (9, 99))
"""From so many to so many tasks of one's own."""

COLUMNS = (
    *("task", "model", "recipe", "device", "n_train", "batch_size", "learning_rate", "momentum"),
    *("weight_decay", "max_epochs", "epochs", "steps", "seconds", "power_watts", "memory_mib"),
    *("stop_reason", "metric", "value", PROBE_ACCURACY, "n_images", "n_classes", "n_held_out"),
    *("source", "kept_back_value", "kept_back_images"),
)
"""Of the outcome table, and some that its readers leave alone."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    tasks = unseen(options.packages_dir)
    if options.list:
        for task in tasks:
            print(
                f"{task.name:28}{len(task.classes):3} classes{task.n_images:5} images"
                f"{len(task.more.images):5} kept back   {task.source}"
            )
        print(json.dumps({"tasks": len(tasks)}))
        return
    torch.set_num_threads(1)
    models = shared_directory("models")
    candidates = [get_card(models, CandidateCard, name) for name in CANDIDATES]
    rounds = [(get_card(models, RecipeCard, name), count) for name, count in ROUNDS]
    shelf = Shelf(options.cache_dir)
    cells = planned(tasks, candidates, rounds)
    index, shards = options.shard
    if not options.figures:
        mine = [cell for cell in cells if hashed("shard", cell.name) % shards == index - 1]
        make(mine, candidates if index == 1 else [], shelf)
        if shards > 1:
            return
    runs = [run for cell in cells if (run := shelf.load(cell)) is not None]
    known = known_of(tasks, options.cache_dir / "embeddings")
    catalogue = Catalogue(
        candidates=load_cards(models, CandidateCard),
        recipes={recipe.name: recipe for recipe, _ in rounds},
        device=get_card(models, DeviceCard, DEVICE),
    )
    if options.table:
        write_table(options.table, runs, known)
    timings = {card.name: timing for card in candidates if (timing := shelf.timing(card))}
    evidence = shipped(models)
    forecaster = Forecaster(evidence, catalogue, known, runs)
    figures, stages = report(forecaster, Baselines(evidence, known, runs), runs, options.orders)
    if len(timings) == len(candidates):
        timed = forecaster.with_timings(timings).before_any()
        figures["before_any_timed"] = told_of("before any outcome, steps timed here", timed)
        figures["timings"] = {name: each.step_seconds.typical for name, each in timings.items()}
    figures["information"] = information(runs)
    scores = scores_of(cells, shelf)
    if len(scores) == len(forecaster.tasks):
        scored = forecaster.with_scores(scores)
        for name, words, told in (
            ("before_any_scored", "before any outcome", scored.before_any()),
            ("one_left_out_scored", "from all other tasks", scored.one_left_out()),
        ):
            figures[name] = told_of(f"{words}, features looked at", told)
    if options.plot:
        plot(options.plot, stages)
    print(json.dumps({"cells": len(cells), "runs": len(runs), **figures}))


def make(cells: Sequence[Cell], timed: Sequence[CandidateCard], shelf: Shelf) -> None:
    """Those that are not there yet, once the steps of the candidates are timed."""
    for card in timed:
        if shelf.timing(card) is None:
            timing = shelf.time(card)
            print(f"{card.name:32}{timing.step_seconds.typical:6.2f} s a step", flush=True)
    for cell in cells:
        if shelf.scores(cell) is None:
            shelf.tell(cell)
    started = time.perf_counter()
    for done, cell in enumerate(cells):
        if shelf.load(cell) is None:
            run = shelf.make(cell)
            print(
                f"{done + 1:3} of {len(cells)} {time.perf_counter() - started:6.0f} s  "
                f"{cell.name:60}{run['value']:6.3f} {kept_back(run):6.3f}{run['seconds']:7.1f} s",
                flush=True,
            )


def scores_of(cells: Sequence[Cell], shelf: Shelf) -> dict[str, dict[str, Mapping[str, float]]]:
    """By task and candidate, of those that were looked at."""
    found: dict[str, dict[str, Mapping[str, float]]] = {}
    for cell in cells:
        told = shelf.scores(cell)
        if told is not None:
            found.setdefault(cell.task.name, {})[cell.candidate.name] = told
    return found


def known_of(tasks: Sequence[UnseenTask], checkpoints: Path) -> dict[str, Known]:
    """What the service knows of each once it is embedded."""
    probe = load_probe(get_card(shared_directory("models"), ProbeCard, Settings().probe))
    found = {}
    for task in tasks:
        embedding = embedded(task.labelled, probe, checkpoints)
        _, intake = read(task.labelled, probe.card.input_size)
        facts = TaskFacts(
            n_images=task.n_images,
            n_classes=len(task.classes),
            complexity=embedding.complexity,
            label_kind=task.labelled.label_kind,
            mean_pixels=intake.mean_pixels,
        )
        found[task.name] = Known(facts, embedding.provenance.cv_accuracy)
    return found


def report(
    forecaster: Forecaster, baselines: Baselines, runs: Sequence[Run], n_orders: int
) -> tuple[dict[str, Any], dict[str, list[Judged]]]:
    """Figures of every stage, and two that are drawn."""
    orders = [
        sorted(forecaster.tasks, key=lambda name: hashed(f"order {number}", name))
        for number in range(n_orders)
    ]
    before = forecaster.before_any()
    figures = {"before_any": told_of("before any outcome", before)}
    figures["before_any"]["baselines"] = _beside(baselines, runs, before, lambda _: set())
    in_order, refused, aside = [], 0, 0
    for number, order in enumerate(orders):
        told, tenant = forecaster.in_order(order, number)
        in_order.append(told)
        refused, aside = refused + tenant.refused, aside + tenant.aside
        if number == 0:
            figures["in_order"] = told_of("in order", told)
            figures["in_order"]["baselines"] = _beside(
                baselines, runs, told, lambda each: set(orders[0][: each.before])
            )
    pooled = [each for told in in_order for each in told]
    for least, most in STEPS_OF_EVIDENCE:
        some = [each for each in pooled if least <= each.before <= most]
        if some:
            name = (
                f"{least} to {most} tasks" if most < len(forecaster.tasks) else f"{least} or more"
            )
            figures[f"after_{least}"] = told_of(f"{n_orders} orders, after {name}", some)
    figures["orders"] = {"refused_versions": refused, "held_aside": aside, "orders": n_orders}
    left_out = forecaster.one_left_out()
    figures["one_left_out"] = told_of("from all other tasks", left_out)
    figures["one_left_out"]["baselines"] = _beside(
        baselines, runs, left_out, lambda each: set(forecaster.tasks) - {each.run["task"]}
    )
    return figures, {"Before any outcome": before, "From all other tasks' outcomes": left_out}


def told_of(name: str, judged: Sequence[Judged]) -> dict[str, Any]:
    """Prints a stage's rows of the table: all runs, and those of each recipe."""
    print(f"\n{name}")
    print(
        f"{'':12}{'runs':>6}{'accuracy off by':>18}{'bias':>7}{'90% holds':>12}{'by task':>9}"
        f"{'kept back':>16}{'90% holds':>12}{'calibrated':>12}{'half width':>11}"
        f"{'seconds off':>13}{'90% holds':>12}{'by task':>9}{'calibrated':>12}"
        f"{'memory off':>12}{'90% holds':>12}"
    )
    found: dict[str, Any] = {}
    for recipe in (None, *dict.fromkeys(each.run["recipe"] for each in judged)):
        some = [each for each in judged if recipe in {None, each.run["recipe"]}]
        of = {
            "accuracy": measures.of_accuracy(some),
            "seconds": measures.of_number(some, "seconds"),
            "memory_mib": measures.of_number(some, "memory_mib"),
        }
        found[recipe or "all"] = of
        print(f"  {recipe or 'all':10}{len(some):6}{_accuracy_row(of['accuracy'])}", end="")
        print(f"{_number_row(of['seconds'])}{_number_row(of['memory_mib'], short=True)}")
    found["regret"] = {
        "first choice": measures.regret(judged, measures.first_choice),
        "highest published top-1": measures.regret(judged, measures.by_top1),
        "chance": measures.regret(judged, measures.by_chance),
    }
    told = ", ".join(
        f"{rule} {each['kept_back']:.1f}" for rule, each in found["regret"].items() if each
    )
    print(f"  points lost against the best candidate, on pictures kept back: {told}")
    return found


def _accuracy_row(of: Mapping[str, Any] | None) -> str:
    if of is None:
        return f"{'nothing is told':>99}"
    share = of["inside_by_task"][0]
    return (
        f"{of['points']:8.1f} ({of['logits']:.2f} lg){of['bias_points']:+7.1f}"
        f"{of['inside']:5} / {of['runs']:<4}{share:9.0%}"
        f"{of['kept_back_points']:9.1f} ({of['kept_back_logits']:.2f})"
        f"{of['kept_back_inside']:5} / {of['runs']:<4}{of['calibrated']:12}"
        f"{of['half_width_points']:11.0f}"
    )


def _number_row(of: Mapping[str, Any] | None, *, short: bool = False) -> str:
    if of is None:
        return ""
    held = f"{np.exp(of['median_log']):11.2f}x{of['inside']:6} / {of['runs']:<4}"
    return held if short else f"{held}{of['inside_by_task'][0]:8.0%}{of['calibrated']:12}"


def _beside(
    baselines: Baselines,
    runs: Sequence[Run],
    judged: Sequence[Judged],
    known: Callable[[Judged], set[str]],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, guess in baselines.of(judged, known).items():
        found[name] = measures.error(guess, judged)
        print(
            f"  {name:28}{found[name]['points']:6.1f} points ({found[name]['logits']:.2f} lg), "
            f"kept back {found[name]['kept_back_points']:.1f} "
            f"({found[name]['kept_back_logits']:.2f})"
        )
    found["seconds of what was seen"] = measures.seconds_seen(judged, runs, known)
    if found["seconds of what was seen"] is not None:
        print(f"  {'seconds of what was seen':28}{np.exp(found['seconds of what was seen']):6.2f}x")
    return found


def information(runs: Sequence[Run]) -> dict[str, Any]:
    """Of runs of the whole network: how the trace of the weights' information went, beside how far
    the loss on new images lies above that on the images learnt from."""
    traced = [run for run in runs if run["curve"][0]["information"] is not None]
    print("\ninformation in the weights, after every epoch")
    rows = []
    for run in traced:
        trace = np.array([epoch["information"] for epoch in run["curve"]])
        last, peak = run["curve"][-1], int(trace.argmax())
        rows.append((trace[-1] / trace[peak], last["loss"] - last["training_loss"], kept_back(run)))
        print(
            f"  {run['task']:28}first {trace[0]:8.1f}  most {trace[peak]:8.1f} in epoch "
            f"{peak + 1:2}  last {trace[-1]:8.1f}   loss learnt {last['training_loss']:.2f}, "
            f"held out {last['loss']:.2f}   kept back {kept_back(run):.0%}"
        )
    if len(rows) < 3:
        return {"runs": len(rows)}
    left, gap, back = np.array(rows).T
    by_gap, by_accuracy = (spearmanr(left, other) for other in (gap, back))
    print(
        f"  what is left of the most, against the gap in loss: rank correlation "
        f"{by_gap.statistic:+.2f} (p {by_gap.pvalue:.2f}); against accuracy kept back "
        f"{by_accuracy.statistic:+.2f} (p {by_accuracy.pvalue:.2f})"
    )
    return {
        "runs": len(rows),
        "left_of_the_most": float(np.median(left)),
        "with_gap_in_loss": [float(by_gap.statistic), float(by_gap.pvalue)],
        "with_accuracy": [float(by_accuracy.statistic), float(by_accuracy.pvalue)],
    }


def write_table(path: Path, runs: Sequence[Run], known: Mapping[str, Known]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        table.writeheader()
        for run in runs:
            told = {
                "device": DEVICE,
                "metric": METRIC,
                PROBE_ACCURACY: known[run["task"]].probe_accuracy,
                "kept_back_value": kept_back(run),
                "kept_back_images": run["more_judged"],
            }
            table.writerow({**run, **told})


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/forecast"))
    parser.add_argument("--packages-dir", type=Path, default=Path(".cache/reference"))
    parser.add_argument("--list", action="store_true", help="tasks")
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N")
    parser.add_argument("--figures", action="store_true", help="make no runs")
    parser.add_argument("--orders", type=int, default=5, help="in which tasks come, one by one")
    parser.add_argument("--table", type=Path, metavar="FILE.csv")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
