"""Fine-tunes a grid of starting points on small tasks for real: the seed of the estimator.

    python -m benchmarks.zoo --list             tasks and starting points
    python -m benchmarks.zoo                    all cells, then the figures: hours on two cores
    python -m benchmarks.zoo --shard 1/2        half of the cells alone, beside another process
    python -m benchmarks.zoo --figures          the figures of what cells there are
    python -m benchmarks.zoo --table FILE.csv   those cells as an outcome table with scores
    python -m benchmarks.zoo --known FILE.csv   with cells that such a table has, not made again

Cells are kept in --cache-dir, so that a run that was cut off goes on. One thread a process; seconds
are CPU time. Figures are of the whole network's training on tasks that every start was trained on,
each task left out: by how much more the chosen start errs than the best one, and how well the order
of all agrees with the true one (weighted tau; its difference from the estimator's with the standard
error over tasks). A task kernel is the estimator's with similar tasks' outcomes as further scores:
whether it is worth having. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from app.catalogue import ProbeCard, get_card
from app.cost.outcome_table import parse_outcomes
from app.embedding.probe import load_probe
from app.embedding.vector import TaskEmbedding
from app.settings import shared_directory
from benchmarks.grid import selection, tasks
from benchmarks.grid.cells import Cell, Shelf, planned, rows_of
from benchmarks.grid.scores import METRICS, OF_FEATURES, distances, embeddings_of
from benchmarks.grid.selection import Array
from benchmarks.grid.starts import NETWORKS, STARTS, Experts
from benchmarks.grid.tasks import GridTask
from benchmarks.quality.questions import hashed
from benchmarks.quality.shards import shard

SEEDS = 3
SEVERAL_SEEDS = ("emoji-objects", "icons-daily", "capitals-sans", "fashion-tops", "scenes")
"""Tasks that are trained on with every seed: how far the truth itself is noise."""

IMAGENET = [number for number, start in enumerate(STARTS) if start.pretraining == "ImageNet-1k"]
NAMES = tuple(start.name for start in STARTS)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    targets = tuple(tasks.targets(options.packages_dir))
    if options.list:
        for task in targets:
            print(
                f"{task.name:24}{task.group:12}{len(task.classes):3} classes"
                f"{len(task.learn.labels):5} to learn{len(task.judge.labels):5} to judge"
            )
        print(json.dumps({"tasks": len(targets), "starts": NAMES}))
        return
    torch.set_num_threads(1)
    shelf = Shelf(options.cache_dir, rows_of(options.known) if options.known else {})
    experts = Experts(options.cache_dir / "experts")
    cells = list(planned(targets, STARTS, SEVERAL_SEEDS, SEEDS))
    index, shards = options.shard
    sources = tuple(tasks.sources(options.packages_dir))
    if not (options.table or options.figures):
        lacking = {cell.start.source for cell in cells if shelf.load(cell) is None}
        for source in sources[index - 1 :: shards]:
            if source.name in lacking:
                experts.train(source)
        mine = [cell for cell in cells if hashed("shard", cell.name) % shards == index - 1]
        make(mine, shelf, experts)
        if shards > 1:
            return
    probe = load_probe(get_card(shared_directory("models"), ProbeCard, NETWORKS[0]))
    known, theirs = (
        embeddings_of(some, probe, options.cache_dir / "embeddings") for some in (targets, sources)
    )
    rows = scored(cells, shelf, known, theirs)
    if options.table:
        with options.table.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
        print(json.dumps({"cells": len(cells), "made": len(rows)}))
        return
    print(json.dumps(report(rows, targets, known, theirs)))


def make(cells: Sequence[Cell], shelf: Shelf, experts: Experts) -> None:
    """Those that are not there yet; one whose expert another shard is still training waits."""
    started = time.perf_counter()
    for done, cell in enumerate(cells):
        if shelf.load(cell) is not None:
            continue
        while cell.start.source and not experts.path(cell.start.source).exists():
            time.sleep(1)
        run = shelf.make(cell, experts)
        print(
            f"{done + 1:5} of {len(cells)} {time.perf_counter() - started:7.0f} s  {cell.name:60}"
            f"{run.accuracy:6.3f}  {run.epochs or '-':>3} epochs {run.seconds:6.1f} s",
            flush=True,
        )


def scored(
    cells: Sequence[Cell],
    shelf: Shelf,
    known: Mapping[str, TaskEmbedding],
    sources: Mapping[str, TaskEmbedding],
) -> list[dict[str, Any]]:
    """The rows of all cells that are made, with what could be told before."""
    far = {metric: distances(known, sources, metric) for metric in METRICS}
    told: dict[tuple[str, str], dict[str, float | None]] = {}
    for cell in cells:
        scores = shelf.scores(cell) if cell.recipe == "head_only" else None
        if scores is not None:
            own: dict[str, float | None] = dict(scores)
            for metric in METRICS:
                distance = far[metric].get((cell.task.name, cell.start.source or ""))
                own[f"score_{metric}"] = None if distance is None else -distance
            own["probe_accuracy"] = known[cell.task.name].provenance.cv_accuracy
            told[cell.task.name, cell.start.name] = own
    return [
        found["row"] | told[cell.task.name, cell.start.name]
        for cell in cells
        if (found := shelf.load(cell)) and (cell.task.name, cell.start.name) in told
    ]


def report(
    rows: Sequence[dict[str, Any]],
    targets: Sequence[GridTask],
    known: Mapping[str, TaskEmbedding],
    sources: Mapping[str, TaskEmbedding],
) -> dict[str, Any]:
    full = [row for row in rows if row["recipe"] == "full"]
    ran = {(row["task"], row["model"]) for row in full if row["seed"] == 0}
    whole = [
        task.name
        for task in targets
        if all((task.name, s.name) in ran for s in STARTS if s.source != task.name)
    ]
    error = 1.0 - _matrix(full, whole, "value", seed=None)
    here = [row for row in full if row["task"] in whole]
    asymmetric = _asymmetric(whole, error, known, sources)
    rules = _rules(here, whole, error, known, asymmetric)
    figures: dict[str, Any] = {"tasks": len(whole), "starts": len(STARTS)}
    figures["chance"] = selection.chance(error)
    print(f"{len(whole)} tasks, {len(STARTS)} starts; error over the best start's, percent")
    print(f"{'chance':34}{figures['chance']:+7.1f}")
    ours = selection.agreement(error, rules["estimator"])
    for name, strength in rules.items():
        figures[name] = selection.increase(error, strength)
        low, high = selection.interval(error, strength)
        more = selection.agreement(error, strength) - ours
        figures[f"{name}: tau"] = float((ours + more).mean())
        print(
            f"{name:34}{figures[name]:+7.1f}  [{low:+.1f}, {high:+.1f}]  tau "
            f"{figures[f'{name}: tau']:.3f}, {more.mean():+.3f} +- "
            f"{more.std(ddof=1) / len(more) ** 0.5:.3f} of the estimator's"
        )
    by_settings = [
        selection.increase(np.where(np.isnan(far), np.nan, error), -far) for far in asymmetric
    ]
    figures["asymmetric_least"], figures["asymmetric_most"] = min(by_settings), max(by_settings)
    print(
        f"nearest source, asymmetric, of the experts alone, by alpha and t0: "
        f"{min(by_settings):+.1f} to {max(by_settings):+.1f}"
    )
    again = [name for name in SEVERAL_SEEDS if name in whole]
    by_seed = [1.0 - _matrix(full, again, "value", seed=seed) for seed in range(SEEDS)]
    if again and np.isfinite(np.nanmin(by_seed, axis=(1, 2))).all():
        figures["replicate_oracle"] = selection.replicate_oracle(np.array(by_seed))
        variance = float(np.nanmean(np.var(by_seed, axis=0, ddof=1)))
        figures["seed_sd_points"] = 100.0 * variance**0.5
        print(
            f"{'replicate oracle, ' + str(len(again)) + ' tasks':34}"
            f"{figures['replicate_oracle']:+7.1f}"
        )
        print(f"accuracy by seed: a standard deviation of {figures['seed_sd_points']:.1f} points")
    return figures


def _rules(
    rows: Sequence[dict[str, Any]],
    whole: list[str],
    error: Array,
    known: Mapping[str, TaskEmbedding],
    asymmetric: Sequence[Array],
) -> dict[str, Array]:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    plain = parse_outcomes(frame.drop([c for c in frame.columns if c.startswith("score_")]))
    scored_by = {
        "estimator": plain,
        "estimator, with scores": parse_outcomes(
            frame.drop([f"score_{metric}" for metric in METRICS])
        ),
        "estimator, with all": parse_outcomes(frame),
    }
    rules = {f"always {NAMES[n]}": selection.always(error, n) for n in IMAGENET}
    rules["outcome prior"] = selection.by_prior(plain, whole, NAMES)
    rules |= {name: selection.by_outcomes(table, whole, NAMES) for name, table in scored_by.items()}
    for name in OF_FEATURES:
        rules[name] = _matrix(rows, whole, name, seed=0)
    for metric in METRICS:
        far = -_matrix(rows, whole, f"score_{metric}", seed=0)
        rules[f"nearest source, {metric}"] = selection.by_distance(error, far, IMAGENET)
    here = {name: known[name] for name in whole}
    for metric in METRICS:
        between = distances(here, here, metric)
        far = np.array([[between[one, other] for other in whole] for one in whole])
        rules[f"prior by similar tasks, {metric}"] = selection.by_similar_tasks(error, far)
        rules[f"estimator, task kernel, {metric}"] = selection.by_outcomes(plain, whole, NAMES, far)
    rules["nearest source, asymmetric"] = selection.by_best_distance(error, asymmetric, IMAGENET)
    return rules


def _asymmetric(
    whole: Sequence[str],
    error: Array,
    known: Mapping[str, TaskEmbedding],
    sources: Mapping[str, TaskEmbedding],
) -> list[Array]:
    """(T, M) for every alpha and t0, nan for starts without a source task."""
    grid = selection.asymmetric_distances({name: known[name] for name in whole}, sources)
    tried = [
        np.array([[each.get((task, s.source or ""), np.nan) for s in STARTS] for task in whole])
        for each in grid.values()
    ]
    for far in tried:
        far[np.isnan(error)] = np.nan
    return tried


def _matrix(
    rows: Sequence[dict[str, Any]], whole: Sequence[str], column: str, seed: int | None
) -> Array:
    """(T, M) of the column, nan where there is none; the mean of all seeds where `seed` is None."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if seed in {None, row["seed"]} and row[column] is not None:
            found.setdefault((row["task"], row["model"]), []).append(row[column])
    return np.array(
        [[np.mean(found.get((task, name), [np.nan])) for name in NAMES] for task in whole]
    ).reshape(len(whole), len(NAMES))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/zoo"))
    parser.add_argument("--packages-dir", type=Path, default=Path(".cache/reference"))
    parser.add_argument("--list", action="store_true", help="tasks and starting points")
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N")
    parser.add_argument("--known", type=Path, metavar="FILE", help="a table to take cells from")
    parser.add_argument("--figures", action="store_true", help="make no cells")
    parser.add_argument("--table", type=Path, metavar="FILE", help="make no cells, write the table")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
