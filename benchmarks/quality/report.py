"""The figures as tables to read, and as one JSON object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from benchmarks.quality import measures
from benchmarks.quality.changes import CHANGES
from benchmarks.quality.figures import Collection, Comparison, Figures, best, comparisons
from benchmarks.quality.measures import Flags, Retrieval
from benchmarks.quality.methods import METHODS
from benchmarks.quality.tasks import LABEL_SIZES, REFERENCE_SIZE, SIZES

PARTS = ("ours, label", "ours, domain", "ours, discriminant")
SHARES = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0)
"""Weights of a part that are tried."""
_NAME = 36  # characters
_MISSES_SHOWN = 40


def report(collection: Collection, *, permutations: int) -> dict[str, Any]:
    """Prints the tables of what cells there are, and returns the JSON object."""
    groups = {
        name: [collection.figures(row, permutations=permutations) for row in rows]
        for name, rows in comparisons(collection).items()
    }
    every = [row for rows in groups.values() for row in rows if row.twins or row.labels]
    for lines in (
        _twin_lines(every),
        _label_lines(every),
        _stability_lines(every),
        _miss_lines(every[0]) if every else (),
    ):
        print("\n".join(lines), end="\n\n")

    result: dict[str, Any] = {
        "ours": groups["ours"][0].to_json(),
        "published": groups["published"][0].to_json(),
        "mean_feature": best([row.to_json() for row in groups["mean_feature"]]),
        "other_distances": {row.comparison.name: row.to_json() for row in groups["ours"][1:]},
        "two_by_two": {row.comparison.method.name: row.to_json() for row in groups["two_by_two"]},
        "published_default": _published_default(collection),
        "complexity": _complexity(collection),
        "error_coverage": _coverage(collection),
        "noise_floor": _floors(collection, groups["ours"][0]),
        "weighed_elsewhere": _weighed_elsewhere(groups["ours"]),
    }
    return result


def _twin_lines(rows: Sequence[Figures]) -> Iterator[str]:
    yield "Twins first (share, 95 % interval, tasks), and their mean rank; both kinds are rivals"
    yield "Told: the tasks alone whose question the probe answers better than chance"
    sizes = "".join(f"{f'{size} a class':^26}" for size in SIZES)
    columns = f"{f'{REFERENCE_SIZE}, told':^26}{'rank':>8}{'same':>8}{'other':>8}"
    yield f"{'':{_NAME}}{sizes}{columns}{'taxonomy rho (p)':>20}"
    for row in rows:
        cells = [
            _share(row.twins[size].retrieval, len(row.twins[size].tasks))
            if size in row.twins
            else ""
            for size in SIZES
        ]
        text = f"{row.comparison.name:{_NAME}}" + "".join(f"{cell:^26}" for cell in cells)
        if reference := row.twins.get(REFERENCE_SIZE):
            text += f"{_told(reference.retrieval, reference.told):^26}"
            text += f"{reference.retrieval.mean_rank:8.2f}"
            for kind in ("same-style", "other-style"):
                part = reference.of_kind(kind)
                text += f"{part.first:8.2f}" if len(part.ranks) else f"{'':8}"
        if row.taxonomy:
            text += f"{row.taxonomy.rho:12.3f} ({row.taxonomy.p:.3f})"
        yield text


def _label_lines(rows: Sequence[Figures]) -> Iterator[str]:
    yield "Label sensitivity: twins first among questions on the same pool, and among all pools"
    sizes = "".join(
        f"{f'{size}: same pool':^26}{'all pools':^26}{'all pools, told':^26}"
        for size in LABEL_SIZES
    )
    yield f"{'':{_NAME}}{sizes}"
    for row in rows:
        text = f"{row.comparison.name:{_NAME}}"
        for size in LABEL_SIZES:
            found = row.labels.get(size)
            if found is None:
                text += " " * 3 * 26
                continue
            for part in (found.same_pool, found.all_pools):
                text += f"{_share(part, len(part.ranks)):^26}"
            text += f"{_told(found.all_pools, found.told):^26}"
        yield text
    for row in rows[:1]:
        for size, labels in row.labels.items():
            shares = {
                question: labels.asking(question).first
                for question in sorted({task.question for task in labels.tasks})
            }
            told = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
            yield f"{row.comparison.name}, {size} a class, by question: {told}"


def _stability_lines(rows: Sequence[Figures]) -> Iterator[str]:
    yield "Stability: median distance to the original over that to its twin; original nearest"
    yield f"{'':{_NAME}}" + "".join(f"{name:^20}" for name in CHANGES)
    for row in rows:
        if row.stability:
            parts = [
                f"{np.median(found.shares):.3f}  {found.found.mean():.2f}"
                for found in row.stability.values()
            ]
            yield f"{row.comparison.name:{_NAME}}" + "".join(f"{part:^20}" for part in parts)


def _miss_lines(row: Figures) -> Iterator[str]:
    """Which tasks' twins are not first, and what is nearest in their place."""
    yield f"Missed by {row.comparison.name}"
    for size, twins in row.twins.items():
        names = [task.task for task in twins.tasks]
        missed = [
            f"{names[i]} -> {names[int(np.argmin(distances[i]))]} ({side})"
            for side, distances in (("A", twins.distances), ("B", twins.back.T))
            for i in range(len(names))
            if twins.retrieval.ranks[i, "AB".index(side)] > 0
        ]
        yield f"  {size} a class, {len(missed)}: " + "; ".join(missed[:_MISSES_SHOWN])


def _published_default(collection: Collection) -> dict[str, Any]:
    """On the few tasks that it was run on, which have no other rivals; the others on the same."""
    groups = comparisons(collection)
    published = groups["published"][0]
    method = METHODS["published_default"]
    name = f"published, {method.draws:,} draws"
    expensive = Comparison(name, method, published.distances)
    found = collection.twins(expensive, REFERENCE_SIZE)
    if found is None:
        return {}
    only = [task.task for task in found.tasks]
    rows = [expensive, published, groups["ours"][0], *groups["mean_feature"]]
    print(f"Twins first among {len(only)} tasks alone, {REFERENCE_SIZE} a class")
    shares = {}
    for row in rows:
        twins = collection.twins(row, REFERENCE_SIZE, only)
        if twins and len(twins.tasks) == len(only):
            print(f"{row.name:{_NAME}}{_share(twins.retrieval, len(only)):^26}")
            shares[row.name] = twins.retrieval.first
    print()
    return {"tasks": len(only), f"twin_first_{REFERENCE_SIZE}": shares}


def _complexity(collection: Collection) -> dict[str, float]:
    """Spearman's rho of complexity and cross-validated error over the twins' sets."""
    result = {}
    for name, method in METHODS.items():
        complexity, error = collection.complexities(method)
        if len(error) > 2:
            result[name] = measures.spearman(complexity, error)
    told = ", ".join(f"{name} {rho:.2f}" for name, rho in result.items())
    print(f"Complexity against cross-validated error, Spearman's rho: {told}\n")
    return result


def _coverage(collection: Collection) -> dict[str, float]:
    """Mean over twins of the share of filters in which they differ no more than errors allow."""
    found = {size: collection.coverage(size) for size in SIZES}
    result = {str(size): float(shares.mean()) for size, shares in found.items() if len(shares)}
    told = ", ".join(f"{share:.2f} at {size}" for size, share in result.items())
    print(f"Filters of same-style twins within 90 % of their errors: {told}\n")
    return result


def _floors(collection: Collection, default: Figures) -> dict[str, dict[str, float]]:
    """Medians of the noise floor and of the distance of twins, under the default on parts."""
    result: dict[str, dict[str, float]] = {}
    for size, twins in default.twins.items() if default.comparison.centred else ():
        floor = float(np.median(collection.floors("combined", size)))
        distance = float(np.median(np.diag(twins.distances)))
        result[str(size)] = {"floor": floor, "twin_distance": distance}
    told = ", ".join(
        f"{found['floor']:.3f} under {found['twin_distance']:.3f} at {size}"
        for size, found in result.items()
    )
    print(f"Median noise floor and distance of twins, {default.comparison.name}: {told}\n")
    return result


def _weighed_elsewhere(rows: Sequence[Figures]) -> dict[str, float]:
    """The shares of `combined` had its weights been chosen without the tasks of each source."""
    of_parts = [row for row in rows if row.comparison.name in PARTS]
    sizes = [size for size in SIZES if of_parts and all(size in row.twins for row in of_parts)]
    result = {}
    for size in sizes:
        twins = [row.twins[size] for row in of_parts]
        found = measures.weighed_elsewhere(
            [(each.distances, each.back) for each in twins],
            [task.path[1] for task in twins[0].tasks],
            list(product(SHARES, repeat=len(twins))),
        )
        result[str(size)] = found.first
    told = ", ".join(f"{share:.3f} at {size}" for size, share in result.items())
    print(f"Twins first with weights chosen on the tasks of other sources alone: {told}\n")
    return result


def _told(found: Retrieval, told: Flags) -> str:
    return _share(found.of(told), int(told.sum())) if told.any() else ""


def _share(found: Retrieval, tasks: int) -> str:
    low, high = found.first_interval
    return f"{found.first:.3f} [{low:.2f}, {high:.2f}] {tasks:3}"
