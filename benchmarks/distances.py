"""Times a matrix of distances between many tasks, by every metric.

    python -m benchmarks.distances                1,000 tasks, as many as a request may ask for
    python -m benchmarks.distances --tasks 200    fewer

What `POST /v1/distances` computes once the embeddings are read, on all cores. Tasks are made up as
for `benchmarks.search`. The last line is JSON: seconds by metric.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np

from app.embedding.distance import METRICS, pairwise
from benchmarks.searching.population import GROVE, LIBRARY, Library

TASKS = 1_000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=TASKS, metavar="N")
    parser.add_argument("--metric", action="append", choices=METRICS)
    options = parser.parse_args(arguments)
    library = Library.read(LIBRARY)
    groves = [library.grove(number) for number in range(-(-options.tasks // GROVE))]
    rows = np.concatenate(groves)[: options.tasks]
    vectors = np.ascontiguousarray(rows[:, : library.vector.shape[1]])
    result: dict[str, float] = {}
    for name in options.metric or METRICS:
        started = time.perf_counter()
        pairwise(
            vectors if METRICS[name].compares == "vector" else rows,
            name,
            epsilon=library.epsilon,
            trivial=library.trivial,
            population=library.population,
        )
        result[name] = time.perf_counter() - started
        print(f"{name:14} {result[name]:7.1f} s for {len(rows):,} tasks", flush=True)
    print(json.dumps({"tasks": len(rows), "seconds": result}))


if __name__ == "__main__":
    main()
