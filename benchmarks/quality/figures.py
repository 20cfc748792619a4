"""From cells to figures: every way to compare, every measure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from app.embedding.distance import METRICS, get_metric, one_to_many
from app.embedding.floor import noise_floor
from app.embedding.parts import Parts, Population
from app.embedding.vector import Noise
from benchmarks.quality import measures
from benchmarks.quality.changes import CHANGES
from benchmarks.quality.measures import Agreement, Array, Flags, Retrieval, Stability
from benchmarks.quality.methods import METHODS, Cell, Cells, Method
from benchmarks.quality.tasks import LABEL_SIZES, REFERENCE_SIZE, SIZES, QualitySet

K = TypeVar("K")
V = TypeVar("V")
Centres = Sequence[Population | None]
Distances = Callable[[Sequence[Cell], Sequence[Cell], Centres], Array]
"""Of rows and columns, with what each row's distances are centred on, if they are."""
FEWEST_TASKS = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of the tables: what is compared, of which method's cells, and how.

    `centred`  whether the distances need populations
    """

    name: str
    method: Method
    distances: Distances
    centred: bool = False


@dataclass(frozen=True, slots=True)
class Twins:
    """Twins of one size: the tasks that both halves are there of, their distances, who is found.

    `distances`, `back`  (T, T), halves A as rows and B as columns, as seen from A and from B: the
                         same but for centred distances of tasks of two sources
    `told`               (T,), which tasks the probe can tell (see `Collection.told`)
    """

    tasks: tuple[QualitySet, ...]
    distances: Array
    back: Array
    told: Flags
    retrieval: Retrieval

    def of_kind(self, kind: str) -> Retrieval:
        return self.retrieval.of(np.array([task.kind == kind for task in self.tasks]))


@dataclass(frozen=True, slots=True)
class LabelTwins:
    """Questions of one size: rivals from the same pool alone, and from all pools together."""

    tasks: tuple[QualitySet, ...]
    told: Flags
    same_pool: Retrieval
    all_pools: Retrieval

    def asking(self, question: str) -> Retrieval:
        chosen = np.array([task.question == question for task in self.tasks])
        return self.same_pool.of(chosen)


@dataclass(frozen=True, slots=True)
class Figures:
    """All measures of one comparison; what has no cells is not there."""

    comparison: Comparison
    twins: Mapping[int, Twins] = field(default_factory=dict)
    labels: Mapping[int, LabelTwins] = field(default_factory=dict)
    taxonomy: Agreement | None = None
    stability: Mapping[str, Stability] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"distance": self.comparison.name}
        for size, twins in self.twins.items():
            found[f"twin_first_{size}"] = twins.retrieval.first
            found[f"mean_rank_{size}"] = twins.retrieval.mean_rank
            found[f"twin_first_{size}_interval"] = twins.retrieval.first_interval
            found[f"tasks_{size}"] = len(twins.tasks)
            found[f"tasks_{size}_told"] = int(twins.told.sum())
            if twins.told.any():
                found[f"twin_first_{size}_told"] = twins.retrieval.of(twins.told).first
            for kind in ("same-style", "other-style"):
                if any(task.kind == kind for task in twins.tasks):
                    name = f"{kind.replace('-', '_')}_first_{size}"
                    found[name] = twins.of_kind(kind).first
        for size, labels in self.labels.items():
            found[f"label_twin_first_{size}"] = labels.all_pools.first
            found[f"label_twin_first_{size}_same_pool"] = labels.same_pool.first
            found[f"label_mean_rank_{size}"] = labels.all_pools.mean_rank
            found[f"label_tasks_{size}"] = len(labels.tasks)
            found[f"label_tasks_{size}_told"] = int(labels.told.sum())
            if labels.told.any():
                found[f"label_twin_first_{size}_told"] = labels.all_pools.of(labels.told).first
        if self.taxonomy:
            found["taxonomy_rho"] = self.taxonomy.rho
            found["taxonomy_p"] = self.taxonomy.p
        for change, stability in self.stability.items():
            key = change.replace("-", "_")
            found[f"{key}_distance_over_twin"] = float(np.median(stability.shares))
            found[f"{key}_found"] = float(stability.found.mean())
        return found


def by_metric(name: str, epsilon: float) -> Distances:
    """The service's distance of that name, in a space of that epsilon.

    Metrics on parts are centred on a population, row by row, that holds nothing of the row's
    own source. The service centres every query on its one reference library, which may well hold
    pictures of the query's source: what is measured here is stricter.
    """

    def of_vectors(rows: Sequence[Cell], columns: Sequence[Cell], _: Centres) -> Array:
        targets = np.stack([cell["vector"] for cell in columns])
        return np.stack(
            [one_to_many(cell["vector"], targets, name, epsilon=epsilon) for cell in rows]
        )

    def of_parts(rows: Sequence[Cell], columns: Sequence[Cell], centres: Centres) -> Array:
        queries, targets = _parts(rows), _parts(columns)
        result = np.empty((len(rows), len(columns)))
        for population in {id(centre): centre for centre in centres}.values():
            chosen = [i for i, centre in enumerate(centres) if centre is population]
            a, b = (Parts.of(some, epsilon, population) for some in (queries[chosen], targets))
            result[chosen] = 1.0 - a.alike(b, get_metric(name).weights)
        return result

    return of_vectors if get_metric(name).compares == "vector" else of_parts


def _with_error(cell: Cell) -> tuple[Array, Array]:
    """Vector and its standard error, both kinds together."""
    vector, drawn, sampled = (
        cell[name].astype(np.float64) for name in ("vector", "draw_error", "sampling_error")
    )
    return vector, np.hypot(drawn, sampled)


def _parts(cells: Iterable[Cell]) -> npt.NDArray[np.float32]:
    """(M, 2 D + RANK K): vector, domain and discriminants."""
    rows = [
        np.concatenate([cell["vector"], cell["domain"], cell["discriminants"].ravel()])
        for cell in cells
    ]
    return np.stack(rows).astype(np.float32)


def mean_feature_distances() -> dict[str, Distances]:
    """Euclidean, cosine, and one less the correlation once all sets' common mean is taken off."""

    def parts(
        rows: Sequence[Cell], columns: Sequence[Cell]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        a, b = (np.stack([cell["mean_feature"] for cell in cells]) for cells in (rows, columns))
        return a, b

    def euclidean(rows: Sequence[Cell], columns: Sequence[Cell], _: Centres) -> Array:
        a, b = parts(rows, columns)
        squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
        distances: Array = np.sqrt(np.maximum(squared, 0.0))
        return distances

    def cosine(rows: Sequence[Cell], columns: Sequence[Cell], _: Centres) -> Array:
        return _one_less_cosine(*parts(rows, columns))

    def correlation(rows: Sequence[Cell], columns: Sequence[Cell], _: Centres) -> Array:
        a, b = parts(rows, columns)
        common = np.concatenate([a, b]).mean(axis=0)
        return _one_less_cosine(a - common, b - common)

    return {"euclidean": euclidean, "cosine": cosine, "centred correlation": correlation}


def _one_less_cosine(a: Array, b: Array) -> Array:
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300) for x in (a, b))
    return 1.0 - a @ b.T


def comparisons(collection: Collection) -> dict[str, list[Comparison]]:
    """Rows by their group; the first of `ours` is the default.

    That is `combined`, or `cosine` where all sets are of one source and nothing can be held out.
    """
    ours, published, epsilon = METHODS["ours"], METHODS["published"], collection.epsilon
    several = len({s.path[1] for s in collection.sets}) > 1
    default = "combined" if several else "cosine"
    symmetric = [
        metric
        for metric in METRICS.values()
        if metric.symmetric and (several or metric.compares == "vector")
    ]
    symmetric.sort(key=lambda metric: metric.name != default)
    return {
        "ours": [
            Comparison(f"ours, {m.name}", ours, by_metric(m.name, epsilon), m.compares == "parts")
            for m in symmetric
        ],
        "published": [Comparison("published, cosine", published, by_metric("cosine", epsilon))],
        "mean_feature": [
            Comparison(f"mean feature, {name}", ours, distances)
            for name, distances in mean_feature_distances().items()
        ],
        "two_by_two": [
            Comparison(f"{method.name}, cosine", method, by_metric("cosine", epsilon))
            for method in METHODS.values()
            if method.procedure == "compose"
        ],
    }


@dataclass(frozen=True, slots=True)
class Collection:
    """The sets and what cells there are of them, in a space of that epsilon."""

    sets: tuple[QualitySet, ...]
    changed: tuple[QualitySet, ...]
    cells: Cells
    epsilon: float
    _known: dict[tuple[str, int], Mapping[str, Population]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def figures(self, comparison: Comparison, *, permutations: int) -> Figures:
        twins = _there({size: self.twins(comparison, size) for size in SIZES})
        labels = _there({size: self._labels(comparison, size) for size in LABEL_SIZES})
        reference = twins.get(REFERENCE_SIZE)
        if reference is None:
            return Figures(comparison, twins, labels)
        tree = measures.tree_distances([task.path for task in reference.tasks])
        taxonomy = measures.agreement(reference.distances, tree, permutations=permutations)
        stability = _there(
            {change: self._stability(comparison, reference, change) for change in CHANGES}
        )
        return Figures(comparison, twins, labels, taxonomy, stability)

    def twins(
        self, comparison: Comparison, size: int, only: Iterable[str] | None = None
    ) -> Twins | None:
        """`only`: these tasks, which then have no other rivals either."""
        names = None if only is None else set(only)
        chosen = [
            s
            for s in self.sets
            if s.kind != "label" and s.size == size and (names is None or s.task in names)
        ]
        tasks, a, b = self._pairs(comparison.method, chosen)
        found = self._both_ways(comparison, tasks, a, b)
        if found is None:
            return None
        there, back = found
        retrieval = measures.find_twins(there, back=back)
        return Twins(tasks, there, back, self.told(tasks), retrieval)

    def told(self, tasks: Sequence[QualitySet]) -> Flags:
        """(T,), of which tasks the probe answers the question better than chance in both halves.

        By the cross-validated accuracy of `ours`. A question that the probe answers no better than
        chance leaves no trace in an embedding to be found by. Shown beside the figure of all tasks,
        never instead of it; the rivals are all tasks.
        """
        wanted = {(task.kind, task.task, task.size) for task in tasks}
        halves: Counter[tuple[str, str, int]] = Counter()
        for labelled in self.sets:
            key = (labelled.kind, labelled.task, labelled.size)
            if key in wanted and (cell := self.cells.load(METHODS["ours"], labelled)):
                accuracy, n, c = (cell[name] for name in ("cv_accuracy", "n_images", "n_classes"))
                halves[key] += measures.is_told(float(accuracy), int(n), int(c))
        return np.array([halves[task.kind, task.task, task.size] == 2 for task in tasks])

    def complexities(self, method: Method) -> tuple[Array, Array]:
        """Complexity and cross-validated error of every twin set of the reference size."""
        found = []
        for labelled in self.sets:
            if labelled.kind != "label" and labelled.size == REFERENCE_SIZE:
                cell, ours = (self.cells.load(m, labelled) for m in (method, METHODS["ours"]))
                if cell and ours:
                    total = cell["vector"].sum(dtype=np.float64)
                    found.append((float(total), 1.0 - float(ours["cv_accuracy"])))
        columns = np.array(found).reshape(-1, 2)
        return columns[:, 0], columns[:, 1]

    def coverage(self, size: int) -> Array:
        """(T,) of same-style twins: how often two samples of a task differ as their errors say.

        By the sampling and the draw error of both halves; 0.90 is wanted.
        """
        method = METHODS["ours"]
        chosen = [s for s in self.sets if s.kind == "same-style" and s.size == size]
        _, a, b = self._pairs(method, chosen)
        return np.array(
            [
                measures.covered(*_with_error(one), *_with_error(other))
                for one, other in zip(a, b, strict=True)
            ]
        )

    def floors(self, metric: str, size: int) -> Array:
        """(2 T,) noise floors of the twins' halves under a metric on parts; none of one source."""
        method, chosen = METHODS["ours"], get_metric(metric)
        tasks, *halves = self._pairs(
            method, [s for s in self.sets if s.kind != "label" and s.size == size]
        )
        populations = self._populations(method, size)
        floors = []
        for cells in halves:
            for task, cell in zip(tasks, cells, strict=True):
                population = populations.get(task.path[1])
                if population is not None:
                    lengths = Parts.of(_parts([cell]), self.epsilon, population).lengths
                    assert lengths is not None
                    noise = Noise(**json.loads(str(cell["noise"])))
                    floors.append(noise_floor(chosen, noise, lengths[0]))
        return np.array(floors, np.float64)

    def _labels(self, comparison: Comparison, size: int) -> LabelTwins | None:
        chosen = [s for s in self.sets if s.kind == "label" and s.size == size]
        tasks, a, b = self._pairs(comparison.method, chosen)
        found = self._both_ways(comparison, tasks, a, b)
        if found is None:
            return None
        there, back = found
        pools = np.array([task.pool for task in tasks])
        together: Flags = pools[:, None] == pools[None, :]
        return LabelTwins(
            tasks,
            self.told(tasks),
            measures.find_twins(there, together, back=back),
            measures.find_twins(there, back=back),
        )

    def _stability(self, comparison: Comparison, twins: Twins, change: str) -> Stability | None:
        place = {task.task: i for i, task in enumerate(twins.tasks)}
        cells, places, sources = [], [], []
        for labelled in self.changed:
            cell = self.cells.load(comparison.method, labelled)
            if labelled.question == change and cell and labelled.task in place:
                cells.append(cell)
                places.append(place[labelled.task])
                sources.append(labelled.path[1])
        if not cells:
            return None
        originals = [self._loaded(comparison.method, task) for task in twins.tasks]
        centres = self._centres(comparison, REFERENCE_SIZE, sources)
        distances = comparison.distances(cells, originals, centres)
        return measures.stability(distances, places, np.diag(twins.distances)[places])

    def _both_ways(
        self,
        comparison: Comparison,
        tasks: Sequence[QualitySet],
        a: Sequence[Cell],
        b: Sequence[Cell],
    ) -> tuple[Array, Array] | None:
        """(T, T) of halves A and B, as seen from A and from B; None where there are too few."""
        if len(tasks) < FEWEST_TASKS:
            return None
        centres = self._centres(comparison, tasks[0].size, [task.path[1] for task in tasks])
        if comparison.centred and None in centres:
            return None
        there = comparison.distances(a, b, centres)
        return there, comparison.distances(b, a, centres).T if comparison.centred else there

    def _centres(self, comparison: Comparison, size: int, sources: Iterable[str]) -> Centres:
        """For rows of these sources: the population that each is centred on."""
        if not comparison.centred:
            return [None for _ in sources]
        populations = self._populations(comparison.method, size)
        return [populations.get(source) for source in sources]

    def _populations(self, method: Method, size: int) -> Mapping[str, Population]:
        """By source: what all sets of that size of all other sources have in common.

        Both halves of twins and of questioned pools; a source without any others has none.
        """
        key = (method.name, size)
        if key not in self._known:
            chosen = [s for s in self.sets if s.size == size]
            there = [(s.path[1], cell) for s in chosen if (cell := self.cells.load(method, s))]
            sources = np.array([source for source, _ in there])
            cells = [np.concatenate([cell["vector"], cell["domain"]]) for _, cell in there]
            rows = np.stack(cells) if there else np.empty((0, 0))
            self._known[key] = {
                source: Population.of(rows[sources != source], self.epsilon)
                for source in {s.path[1] for s in chosen}
                if (sources != source).any()
            }
        return self._known[key]

    def _pairs(
        self, method: Method, sets: Iterable[QualitySet]
    ) -> tuple[tuple[QualitySet, ...], list[Cell], list[Cell]]:
        """The halves A of the tasks that both halves are there of, and both halves' cells."""
        halves: dict[str, dict[str, tuple[QualitySet, Cell]]] = {}
        for labelled in sets:
            cell = self.cells.load(method, labelled)
            if cell is not None:
                halves.setdefault(labelled.task, {})[labelled.half] = (labelled, cell)
        both = [pair for pair in halves.values() if len(pair) == 2]
        return (
            tuple(pair["A"][0] for pair in both),
            [pair["A"][1] for pair in both],
            [pair["B"][1] for pair in both],
        )

    def _loaded(self, method: Method, labelled: QualitySet) -> Cell:
        cell = self.cells.load(method, labelled)
        if cell is None:
            raise FileNotFoundError(self.cells.path(method, labelled))
        return cell


def _there(found: Mapping[K, V | None]) -> dict[K, V]:
    return {key: value for key, value in found.items() if value is not None}


def best(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several distances each figure's best: a baseline gets the benefit of the choice.

    `found`  what `Figures.to_json` gave for each
    """
    result: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in found for key in row):
        values = [row[key] for row in found if key in row]
        if key == "distance":
            result[key] = "the best of " + "; ".join(values) + ", figure by figure"
        elif key.startswith(("tasks", "label_tasks")) or key.endswith("interval"):
            continue
        elif "rank" in key or key.endswith(("_p", "distance_over_twin")):
            result[key] = min(values)
        else:
            result[key] = max(values)
    return result
