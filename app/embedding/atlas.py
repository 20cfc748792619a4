"""The atlas: tasks on a map, near where their nearest are, with clusters that have names.

Positions come from t-SNE (van der Maaten and Hinton, 2008) in the form of Boehm, Berens and Kobak
(2022): uniform affinities on the graph of nearest neighbours alone, never a full matrix, by the
interpolated gradients of Linderman et al. (2019) where tasks are many. A first map starts at the
first two principal axes of the tasks' points. Tasks that come later are placed among the others,
which stay where they are; only when they have become many do all of them settle anew, from where
they are, and turned back so that the map as a whole does not move.

Clusters are those of HDBSCAN (Campello et al., 2013) on the map, since that is what is seen, at
its own scale; their dendrogram is of mean linkage between their centres in the space of points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import openTSNE
from openTSNE.affinity import Affinities, Uniform
from openTSNE.nearest_neighbors import PrecomputedNeighbors
from scipy.cluster.hierarchy import linkage
from scipy.linalg import orthogonal_procrustes
from scipy.sparse import csr_matrix
from sklearn.cluster import HDBSCAN

Array = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

NEIGHBOURS = 15
EXAGGERATED_ROUNDS = 250
ROUNDS = 500
SETTLING_ROUNDS = 100
PLACING_ROUNDS = 100
EXAGGERATION = 12.0
MANY = 10_000
"""Tasks from which gradients are interpolated."""
NAMES = 3
"""Tags in the name of a cluster."""
TELLING = 1.5
"""Times as often as on the whole map a tag stands in a cluster whose name it is part of."""
NOWHERE = -1
FEW = 3
"""So many tasks and fewer have no neighbourhoods to speak of."""
_START = 1e-4  # standard deviation of a first map's beginning, as t-SNE wants it


@dataclass(frozen=True, slots=True)
class Cluster:
    """`number` as in the labels; `position` its centre on the map.

    `shares`  of its tasks that have each of the tags in its name
    """

    number: int
    name: str
    tasks: int
    position: tuple[float, float]
    shares: tuple[tuple[str, float], ...]


def neighbours_of(count: int) -> int:
    """How many nearest tasks draw one of so many to them."""
    return max(1, min(NEIGHBOURS, count // 4, count - 1))


def first_map(neighbours: Indices, points: Matrix, *, seed: int = 0, threads: int = 1) -> Array:
    """(N, 2) positions, in units of t-SNE: neighbours lie about one apart.

    `neighbours`  (N, k) numbers of each task's nearest, itself not among them
    `points`      (N, d)
    """
    start = _principal(points, seed)
    if len(points) <= FEW:
        return start
    map_ = _tsne(start * (_START / max(start[:, 0].std(), 1e-12)), neighbours, seed, threads)
    map_.optimize(EXAGGERATED_ROUNDS, inplace=True, exaggeration=EXAGGERATION, momentum=0.5)
    map_.optimize(ROUNDS, inplace=True, momentum=0.8)
    found: Array = np.asarray(map_) - np.mean(map_, axis=0)
    return found


def settled(neighbours: Indices, positions: Array, *, seed: int = 0, threads: int = 1) -> Array:
    """(N, 2) where tasks go from their positions, all of them.

    At the end the map is turned, scaled and moved back to where it fits the positions best.
    """
    if len(positions) <= FEW:
        return positions
    map_ = _tsne(positions, neighbours, seed, threads)
    map_.optimize(SETTLING_ROUNDS, inplace=True, momentum=0.5)
    centre = positions.mean(axis=0)
    found = np.asarray(map_) - np.mean(map_, axis=0)
    turn, overlap = orthogonal_procrustes(found, positions - centre)
    size = overlap / max(np.square(found).sum(), 1e-12)
    result: Array = size * found @ turn + centre
    return result


def placed(neighbours: Indices, positions: Array) -> Array:
    """(M, 2) for new tasks among others at (N, 2), which stay.

    `neighbours`  (M, k) numbers of the others nearest to each new task, nearest first; k may be 1
    """
    start: Array = np.median(positions[neighbours], axis=1)
    if len(positions) <= FEW:
        return start
    count, k = neighbours.shape
    affinities = csr_matrix(
        (np.full(count * k, 1 / k), neighbours.ravel(), np.arange(0, count * k + 1, k)),
        shape=(count, len(positions)),
    )
    none = Affinities()  # of the others to each other: they stay
    none.P = csr_matrix((len(positions), len(positions)))
    others = openTSNE.TSNEEmbedding(positions, none, negative_gradient_method="bh")
    partial = openTSNE.tsne.PartialTSNEEmbedding(
        start, others, affinities, negative_gradient_method="bh", n_jobs=1
    )
    partial.optimize(
        PLACING_ROUNDS,
        inplace=True,
        learning_rate=0.1,
        momentum=0.8,
        max_grad_norm=0.25,
    )
    result: Array = np.asarray(partial)
    return result


def clusters_of(positions: Array) -> Indices:
    """(N,) cluster of each task, numbered by size, the largest 0; NOWHERE for those in none."""
    count = len(positions)
    smallest = max(4, round(np.sqrt(count) / 3))
    if count < 2 * smallest:
        return np.full(count, NOWHERE)
    labels = HDBSCAN(min_cluster_size=smallest, min_samples=3, copy=True).fit_predict(positions)
    sizes = Counter(labels[labels >= 0].tolist())
    order = {label: rank for rank, (label, _) in enumerate(sorted(sizes.items(), key=_largest))}
    return np.array([order.get(label, NOWHERE) for label in labels.tolist()], np.int64)


def described(labels: Indices, positions: Array, tags: Sequence[Sequence[str]]) -> list[Cluster]:
    """The clusters in order, named after what their tasks are tagged with more often than others.

    Of each tag p(tag | cluster) ln(p(tag | cluster) / p(tag)) is what it tells of a cluster; the
    tags that tell most, and stand in half of its tasks, make the name. Without one it is numbered.
    """
    overall = Counter(tag for each in tags for tag in set(each))
    result = []
    for number in range(int(labels.max(initial=NOWHERE)) + 1):
        members = np.flatnonzero(labels == number)
        within = Counter(tag for i in members.tolist() for tag in set(tags[i]))
        shares = {tag: count / len(members) for tag, count in within.items()}
        tells = {
            tag: share * np.log(share * len(tags) / overall[tag]) for tag, share in shares.items()
        }
        telling = [
            tag
            for tag in sorted(tells, key=lambda tag: (-tells[tag], tag))
            if shares[tag] >= max(0.5, TELLING * overall[tag] / len(tags))
        ][:NAMES]
        result.append(
            Cluster(
                number,
                ", ".join(telling) or f"cluster {number + 1}",
                len(members),
                tuple(np.median(positions[members], axis=0).tolist()),
                tuple((tag, round(shares[tag], 3)) for tag in telling),
            )
        )
    return result


def dendrogram(points: Matrix, labels: Indices) -> list[tuple[int, int, float]]:
    """Which clusters join at what distance, as rows of `scipy.cluster.hierarchy.linkage`.

    C clusters are numbered 0 to C - 1, what the i-th row joins is number C + i. The distance is one
    less the cosine of mean points.
    """
    count = int(labels.max(initial=NOWHERE)) + 1
    if count < 2:
        return []
    centres = np.stack([points[labels == number].mean(axis=0) for number in range(count)])
    joined = linkage(centres, method="average", metric="cosine")
    return [(int(a), int(b), float(max(0.0, height))) for a, b, height, _ in joined]


def trustworthiness(
    points: Matrix, positions: Array, *, neighbours: int = 10, sample: int = 500, seed: int = 0
) -> float:
    """How far near on the map is near in the space of points, 1 at best, 0.5 by chance.

    Of Venna and Kaski (2001), over a sample of tasks: of those among a task's nearest on the map
    that are not among its nearest in the space, how far behind they stand there.
    """
    n, k = len(points), neighbours
    if n <= 2 * k + 1:
        k = max(1, (n - 1) // 3)
    asked = np.random.default_rng(seed).permutation(n)[:sample]
    behind = 0.0
    for i in asked:
        near = np.square(positions - positions[i]).sum(axis=1)
        far = -(points @ points[i])
        near[i], far[i] = np.inf, np.inf
        ranks = np.empty(n)
        ranks[np.argsort(far, kind="stable")] = np.arange(1, n + 1)
        behind += np.maximum(0, ranks[np.argsort(near, kind="stable")[:k]] - k).sum()
    return float(1 - 2 * behind / (len(asked) * k * (2 * n - 3 * k - 1)))


def _largest(item: tuple[int, int]) -> tuple[int, int]:
    label, size = item
    return -size, label


def _tsne(start: Array, neighbours: Indices, seed: int, threads: int) -> openTSNE.TSNEEmbedding:
    graph = PrecomputedNeighbors(neighbours, np.ones(neighbours.shape))
    affinities: Affinities = Uniform(knn_index=graph, symmetrize="mean", n_jobs=threads)
    return openTSNE.TSNEEmbedding(
        start,
        affinities,
        negative_gradient_method="fft" if len(start) >= MANY else "bh",
        learning_rate="auto",
        random_state=seed,
        n_jobs=threads,
    )


def _principal(points: Matrix, seed: int) -> Array:
    """(N, 2) coordinates along the first two principal axes, always the same way round."""
    generator = np.random.default_rng(seed)
    sample = points[generator.permutation(len(points))[:2_000]].astype(np.float64)
    mean = sample.mean(axis=0)
    _, _, axes = np.linalg.svd(sample - mean, full_matrices=False)
    result = np.zeros((len(points), 2))
    found = (points - mean) @ axes[:2].T
    result[:, : found.shape[1]] = found
    signs = np.sign(result[np.abs(result).argmax(axis=0), [0, 1]])
    return result * np.where(signs == 0, 1, signs)
