"""Measures whether larger inputs, another probe, or two together would tell more tasks apart.

    python -m benchmarks.embedding_inputs                                    the comparison kept
    python -m benchmarks.embedding_inputs tf_efficientnet_lite0@112          one way to look
    python -m benchmarks.embedding_inputs NAME@112+OTHER@160                 two probes together
    python -m benchmarks.embedding_inputs --quick                            digits alone

By the discriminants alone, which find most twins and take one forward pass an image, so that a
probe or an input size is tried in minutes; two together are compared by the mean of their
distances. Twins and questions are those of `benchmarks.embedding_quality` at 10 and 20 images a
class. `told` are the tasks whose question the probe's features answer better than chance, in both
halves. What a probe gave stays in --cache-dir, and a run that was cut off goes on. The last line is
JSON, by way to look.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.catalogue import ProbeCard, get_card
from app.embedding.discriminants import discriminants
from app.embedding.distance import one_to_many
from app.embedding.head import fit_head
from app.embedding.parts import Population
from app.embedding.probe import BATCH_SIZE, Probe, load_probe
from app.settings import shared_directory
from benchmarks.quality import tasks
from benchmarks.quality.measures import find_twins, is_told
from benchmarks.quality.tasks import LABEL_SIZES, REFERENCE_SIZE, QualitySet, read

Matrix = npt.NDArray[np.float32]

COMPARED = (
    "tf_efficientnet_lite0@112",
    "tf_efficientnet_lite0@160",
    "tf_efficientnet_lite0@224",
    "tf_efficientnet_lite2@160",
    "tf_efficientnet_lite0@112+tf_efficientnet_lite0@224",
    "tf_efficientnet_lite0@112+tf_efficientnet_lite2@160",
)
# The metric wants a vector and a domain part too: one filter each, the same for all.
_ONE_FILTER = np.ones(2, np.float32)
_POPULATION = Population(np.zeros(1, np.float32), np.zeros(1, np.float32))


@dataclass(frozen=True, slots=True)
class Look:
    """What a probe saw in a set: discriminants (RANK, K), and whether it can tell the classes."""

    axes: Matrix
    accuracy: float
    told: bool


class Looks:
    """A probe's look at every set; an image that stands in several runs once."""

    def __init__(self, probe: Probe, directory: Path) -> None:
        self._probe = probe
        self._directory = directory / probe.space_id
        self._seen: dict[str, tuple[Matrix, Matrix]] = {}

    def at(self, labelled: QualitySet) -> Look:
        path = self._directory / f"{labelled.images.digest[:32]}.npz"
        if path.exists():
            with np.load(path) as kept:
                return Look(kept["axes"], float(kept["accuracy"]), bool(kept["told"]))
        look = self._fresh(labelled)
        self._directory.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        with scratch.open("wb") as stream:
            np.savez(stream, axes=look.axes, accuracy=look.accuracy, told=look.told)
        scratch.replace(path)
        return look

    def _fresh(self, labelled: QualitySet) -> Look:
        images = read(labelled.images, self._probe.card.input_size)
        missing = [i for i, digest in enumerate(images.digests) if digest not in self._seen]
        for start in range(0, len(missing), BATCH_SIZE):
            rows = missing[start : start + BATCH_SIZE]
            found = (seen.numpy(force=True) for seen in self._probe.look(images.pixels[rows]))
            for row, features, responses in zip(rows, *found, strict=True):
                self._seen[images.digests[row]] = features, responses
        seen = [self._seen[digest] for digest in images.digests]
        features, responses = (np.stack(each) for each in zip(*seen, strict=True))
        n_classes, kinds = len(images.classes), self._probe.response_kinds
        accuracy = fit_head(features, images.labels, n_classes, images.digests).cv_accuracy or 0.0
        return Look(
            discriminants(responses, kinds, images.labels, n_classes, images.digests),
            accuracy,
            is_told(accuracy, len(images.labels), n_classes),
        )


def figures(
    pairs: Mapping[str, list[tuple[QualitySet, QualitySet]]],
    looks: Sequence[Mapping[str, Look]],
) -> dict[str, float]:
    """Shares of twins found by the mean of the distances of several looks, by name of the set."""
    result: dict[str, float] = {}
    for name, both in pairs.items():
        distances = np.mean([_distances(both, look) for look in looks], axis=0)
        found = find_twins(distances)
        told = np.array([all(look[s.name].told for look in looks for s in pair) for pair in both])
        result[f"{name}_first"] = found.first
        result[f"{name}_mean_rank"] = found.mean_rank
        result[f"{name}_told"] = float(told.mean())
        for kind in sorted({a.kind for a, _ in both} - {"label"}):
            chosen = np.array([a.kind == kind for a, _ in both])
            result[f"{name}_first_{kind.replace('-', '_')}"] = found.of(chosen).first
    return result


def paired(sets: Sequence[QualitySet]) -> dict[str, list[tuple[QualitySet, QualitySet]]]:
    """Halves A and B of every task, by what is asked of them: `twin_20`, `label_twin_10` ..."""
    found: dict[str, list[tuple[QualitySet, QualitySet]]] = {}
    for size in sorted({s.size for s in sets} & {REFERENCE_SIZE, *LABEL_SIZES}, reverse=True):
        for prefix, of_labels in (("twin", False), ("label_twin", True)):
            chosen = [s for s in sets if s.size == size and (s.kind == "label") == of_labels]
            others = {(s.task, s.kind): s for s in chosen if s.half == "B"}
            found[f"{prefix}_{size}"] = [
                (s, others[s.task, s.kind]) for s in chosen if s.half == "A"
            ]
    return {name: both for name, both in found.items() if both}


def _distances(
    both: Sequence[tuple[QualitySet, QualitySet]], look: Mapping[str, Look]
) -> npt.NDArray[np.float64]:
    a, b = (
        np.stack([np.concatenate([_ONE_FILTER, look[s.name].axes.ravel()]) for s in half])
        for half in zip(*both, strict=True)
    )
    return np.stack(
        [one_to_many(row, b, "discriminant", epsilon=1e-12, population=_POPULATION) for row in a]
    )


def _probe_of(spec: str, device: str) -> Probe:
    """`NAME@SIZE`: a card's probe at another input size than the card's."""
    name, _, size = spec.partition("@")
    card = get_card(shared_directory("models"), ProbeCard, name)
    if size:
        card = card.model_copy(update={"input_size": int(size), "digest": None})
    return load_probe(card, device)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ways", nargs="*", default=COMPARED, metavar="NAME@SIZE[+NAME@SIZE]")
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/reference"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="digits alone")
    options = parser.parse_args(arguments)
    sets = tasks.few_sets() if options.quick else tasks.sets(options.cache_dir)
    pairs = paired(sets)
    looks: dict[str, dict[str, Look]] = {}
    result = {}
    for way in options.ways:
        for spec in way.split("+"):
            if spec not in looks:
                started = time.perf_counter()
                at = Looks(_probe_of(spec, options.device), options.cache_dir / "inputs").at
                both = [s for found in pairs.values() for pair in found for s in pair]
                looks[spec] = {s.name: at(s) for s in both}
                print(f"{spec}: {time.perf_counter() - started:.0f} s", flush=True)
        result[way] = figures(pairs, [looks[spec] for spec in way.split("+")])
    columns = list(next(iter(result.values())))
    width = max(map(len, result))
    print("\n" + " " * width + "".join(f"{i:>8}" for i in range(1, len(columns) + 1)))
    for way, found in result.items():
        print(f"{way:{width}}" + "".join(f"{found[name]:8.3f}" for name in columns))
    print(", ".join(f"{i} {name}" for i, name in enumerate(columns, 1)) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
