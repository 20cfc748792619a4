"""Measures the atlas: how true its map is, what its clusters are, what a map of many tasks takes.

    python -m benchmarks.atlas                    the reference library, and 10,000 made-up tasks
    python -m benchmarks.atlas --size 100000      of so many: some minutes

Trustworthiness (Venna and Kaski 2001) is 1 where near on the map is near in the space, 0.5 by
chance. Agreement is the adjusted mutual information of clusters with families, 0 by chance: with
the medium of the library's pictures and with what is asked of them, over all tasks, those outside
every cluster being one family more. Stability: one task in a hundred comes last, to its place among
the others, who stay; then all settle. What was next to each other shall be so afterwards: moved is
the median distance of those who were there, in widths of the map. Made-up tasks are those of
`benchmarks.search` and share its --directory. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score
from threadpoolctl import threadpool_limits

from app.embedding import atlas
from app.embedding.atlas import Indices
from app.store.parts_index import PartsIndex
from app.store.vectors import Rows
from benchmarks.searching.made import Made, build

SIZE = 10_000
LATE = 100
"""One task in so many comes last."""
MEDIUM, QUESTION = 0, -1
"""Places among the tags of a library's task."""


def of_library(made: Made) -> dict[str, float]:
    rows = made.library.rows()
    seqs = np.arange(1, len(rows) + 1)
    with tempfile.TemporaryDirectory() as directory:
        index = PartsIndex(Path(directory), made.space, made.library.population)
        with index.shelf.writing():
            index.take_in(seqs.tolist(), np.zeros(len(rows), np.int64), rows, len(rows))
        near, points = index.nearest(seqs, atlas.neighbours_of(len(rows))), index.points(seqs)
    positions = atlas.first_map(near, points)
    labels = atlas.clusters_of(positions)
    return {
        "tasks": len(rows),
        "trustworthiness": atlas.trustworthiness(points, positions),
        "clusters": int(labels.max() + 1),
        "in_a_cluster": float((labels != atlas.NOWHERE).mean()),
        **{
            f"agreement_{name}": float(
                adjusted_mutual_info_score([tags[place] for tags in made.library.tags], labels)
            )
            for name, place in (("medium", MEDIUM), ("question", QUESTION))
        },
    }


def of_many(made: Made, threads: int) -> dict[str, float]:
    index, seqs = made.index(), np.arange(1, made.size + 1)
    there = seqs % LATE != 0
    result: dict[str, float] = {"tasks": made.size}

    def timed(name: str, work: Any) -> Any:
        started = time.perf_counter()
        found = work()
        result[f"{name}_seconds"] = time.perf_counter() - started
        return found

    def nearest(some: Rows, onto: Rows | None = None) -> Indices:
        count = len(some if onto is None else onto)
        return index.nearest(some, atlas.neighbours_of(count), onto=onto)

    points = index.points(seqs)
    near = timed("neighbours", lambda: nearest(seqs[there]))
    at = np.empty((made.size, 2))
    at[there] = timed("map", lambda: atlas.first_map(near, points[there], threads=threads))
    came = nearest(seqs[~there], onto=seqs[there])
    at[~there] = timed("placing", lambda: atlas.placed(came, at[there]))
    result["trustworthiness"] = atlas.trustworthiness(points, at)
    labels = timed("clusters", lambda: atlas.clusters_of(at))
    result["clusters"] = int(labels.max() + 1)
    every = nearest(seqs)
    after = timed("settling", lambda: atlas.settled(every, at, threads=threads))
    moved = np.linalg.norm(after[there] - at[there], axis=1)
    result["moved_by_settling"] = float(np.median(moved) / np.ptp(at[:, 0]))
    result["trustworthiness_settled"] = atlas.trustworthiness(points, after)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=SIZE, metavar="N")
    parser.add_argument("--directory", type=Path, default=Path(".cache/search"))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    made = Made.of(options.directory, options.size, 100)
    build(made, options.processes)
    with threadpool_limits(1, user_api="blas"):
        result = {"library": of_library(made), "made": of_many(made, options.processes)}
    for name, figures in result.items():
        print(name, ", ".join(f"{key} {value:.4g}" for key, value in figures.items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
