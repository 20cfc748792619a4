"""Fine-tunes a grid of starting points on small tasks for real: the seed of the estimator.

    python -m benchmarks.zoo --list             tasks and starting points
    python -m benchmarks.zoo                    all cells: some hours on two cores
    python -m benchmarks.zoo --shard 1/2        half of them, beside another process
    python -m benchmarks.zoo --table FILE.csv   the outcome table of what cells there are

Cells are kept in --cache-dir, so that a run that was cut off goes on. One thread a process; seconds
are CPU time. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.grid import tasks
from benchmarks.grid.cells import Cell, Shelf, planned
from benchmarks.grid.starts import STARTS, Experts
from benchmarks.quality.questions import hashed

SEEDS = 3
SEVERAL_SEEDS = ("emoji-objects", "icons-daily", "capitals-sans", "fashion-tops", "scenes")
"""Tasks that are trained on with every seed: how far the truth itself is noise."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    targets = tuple(tasks.targets(options.packages_dir))
    if options.list:
        for task in targets:
            print(
                f"{task.name:24}{task.group:12}{len(task.classes):3} classes"
                f"{len(task.learn.labels):5} to learn{len(task.judge.labels):5} to judge"
            )
        print(json.dumps({"tasks": len(targets), "starts": [start.name for start in STARTS]}))
        return
    torch.set_num_threads(1)
    shelf, experts = Shelf(options.cache_dir), Experts(options.cache_dir / "experts")
    cells = list(planned(targets, STARTS, SEVERAL_SEEDS, SEEDS))
    index, shards = options.shard
    if not options.table:
        for source in tuple(tasks.sources(options.packages_dir))[index - 1 :: shards]:
            experts.train(source)
        mine = [cell for cell in cells if hashed("shard", cell.name) % shards == index - 1]
        make(mine, shelf, experts)
    rows = [found["row"] for cell in cells if (found := shelf.load(cell))]
    if options.table and rows:
        with options.table.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    print(json.dumps({"cells": len(cells), "made": len(rows)}))


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


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/zoo"))
    parser.add_argument("--packages-dir", type=Path, default=Path(".cache/reference"))
    parser.add_argument("--list", action="store_true", help="tasks and starting points")
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N")
    parser.add_argument("--table", type=Path, metavar="FILE", help="make no cells, write the table")
    return parser.parse_args(arguments)


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not 1 <= int(index) <= int(count):
        raise argparse.ArgumentTypeError(f"{text} is not one of 1/N to N/N")
    return int(index), int(count)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
