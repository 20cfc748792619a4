"""The figures of docs/concepts.md, from the reference library: seconds.

    python -m benchmarks.concepts [--out docs]

Nothing is embedded for them: parts, complexities and distances are those of the tasks that ship.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from app.embedding.distance import Ranker, get_metric
from app.embedding.floor import noise_floor
from app.embedding.parts import Parts, Population
from app.embedding.vector import Noise
from benchmarks.searching.population import LIBRARY

Array = npt.NDArray[np.float64]

ASKED = "digits-a"
PAIRS = {
    "digits-b": "the same question, other pictures",
    "digits-odd-or-even": "another question, like pictures",
    "fashion-kinds-a": "another question, other pictures",
}
FILTERS = 1_500
"""Shown of some twenty thousand, drawn once."""
NEAREST = 24
COLOURS = ("#2a5bb4", "#b4502a", "#3d8a4f", "#8a4fa0", "#a08a2a", "#4f8f9a", "#888888", "#c05a8a")


@dataclass(frozen=True, slots=True, eq=False)
class Shelf:
    """The library's tasks: `rows` (T, 2 D + R K) as `parts.row_of` makes them."""

    names: list[str]
    media: list[str]
    rows: Array
    complexity: Array
    accuracy: Array
    noise: list[Noise]
    epsilon: float
    population: Population

    @classmethod
    def read(cls) -> Shelf:
        with np.load(LIBRARY, allow_pickle=False) as file:
            kept = dict(file)
        cards = json.loads(str(kept["tasks"]))
        epsilon = float(kept["epsilon"])
        vector, domain = (
            np.maximum(np.exp2(kept[name].astype(np.float64)) - epsilon, 0.0)
            for name in ("vector", "domain")
        )
        axes = kept["discriminants"].astype(np.float64).reshape(len(cards), -1)
        return cls(
            names=[card["name"] for card in cards],
            media=[card["tags"][0] for card in cards],
            rows=np.concatenate([vector, domain, axes], axis=1),
            complexity=kept["complexity"],
            accuracy=np.array([card["provenance"]["cv_accuracy"] for card in cards], np.float64),
            noise=[Noise(**noise) for noise in json.loads(str(kept["noise"]))],
            epsilon=epsilon,
            population=Population(kept["population_label"], kept["population_domain"]),
        )

    def parts(self, name: str) -> Parts:
        row = self.rows[[self.names.index(name)]]
        return Parts.of(row, self.epsilon, self.population)


def draw_parts(shelf: Shelf, path: Path) -> dict[str, dict[str, float]]:
    """Filters of one task against those of three others, by each part; correlations."""
    found: dict[str, dict[str, float]] = {}
    shown = np.random.default_rng(0).choice(len(shelf.population.label), FILTERS, replace=False)
    figure = Figure((8.4, 5.6), layout="constrained")
    panels = figure.subplots(2, len(PAIRS), sharex="row", sharey="row")
    asked = shelf.parts(ASKED)
    for column, (name, title) in enumerate(PAIRS.items()):
        other = shelf.parts(name)
        found[name] = {}
        for axes, part in zip(panels[:, column], ("domain", "label"), strict=True):
            mine, theirs = getattr(asked, part)[0], getattr(other, part)[0]
            found[name][part] = alike = float(mine @ theirs)
            scale = np.sqrt(len(mine))
            axes.scatter(
                mine[shown] * scale,
                theirs[shown] * scale,
                s=1.5,
                color=COLOURS[0],
                lw=0,
                rasterized=True,
            )
            axes.axline((0, 0), slope=1, color="#888888", lw=0.6)
            axes.set(xlim=(-5, 5), ylim=(-5, 5), aspect="equal")
            axes.set_ylabel(f"{part} part of {name}", fontsize=8)
            axes.set_title(
                f"{title}\n" * (part == "domain") + f"correlation {alike:.2f}", fontsize=8
            )
            axes.tick_params(labelsize=7)
    figure.supxlabel(
        f"{ASKED}, every filter's deviation from what all tasks have in common", fontsize=9
    )
    figure.savefig(path, dpi=200)
    return found


def draw_complexity(shelf: Shelf, path: Path) -> dict[str, float]:
    figure = Figure((7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for colour, medium in zip(COLOURS, dict.fromkeys(shelf.media), strict=False):
        there = np.array([each == medium for each in shelf.media])
        axes.scatter(
            100 * shelf.accuracy[there],
            np.maximum(shelf.complexity[there], 0.01),
            s=16,
            color=colour,
            label=medium,
            lw=0,
        )
    axes.set(
        yscale="log",
        xlabel="pictures that the probe's own head gets right, held out, %",
        ylabel="complexity",
    )
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="lower left")
    figure.savefig(path)
    return dict(zip(shelf.names, np.round(shelf.complexity, 2).tolist(), strict=True))


def draw_neighbours(shelf: Shelf, path: Path) -> dict[str, float]:
    """The nearest of one task by `combined`, with the noise floor of each comparison."""
    metric, here = get_metric("combined"), shelf.names.index(ASKED)
    ranker = Ranker.of(
        shelf.rows[here], "combined", epsilon=shelf.epsilon, population=shelf.population
    )
    ranked = ranker.rank(shelf.rows)
    assert ranked.lengths is not None
    own = noise_floor(metric, shelf.noise[here], ranker.lengths) or 0.0
    order = [at for at in np.argsort(ranked.distances).tolist() if at != here][:NEAREST]
    floors = [
        max(own, noise_floor(metric, shelf.noise[at], ranked.lengths[at]) or 0.0) for at in order
    ]
    distances = ranked.distances[order]
    figure = Figure((7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(order))[::-1]
    colours = dict(zip(dict.fromkeys(shelf.media), COLOURS, strict=False))
    axes.barh(places, distances, height=0.6, color=[colours[shelf.media[at]] for at in order])
    axes.barh(places, floors, height=0.6, color="white", alpha=0.6, label="noise floor")
    axes.set_yticks(places, [shelf.names[at] for at in order], fontsize=7)
    axes.set(xlabel=f"combined distance to {ASKED}; the pale part is the noise floor", xlim=(0, 1))
    figure.savefig(path)
    return {shelf.names[at]: round(float(ranked.distances[at]), 3) for at in order}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    out = parser.parse_args().out
    shelf = Shelf.read()
    told: dict[str, Any] = {
        "correlations": draw_parts(shelf, out / "parts.svg"),
        "neighbours": draw_neighbours(shelf, out / "neighbours.svg"),
        "complexity": draw_complexity(shelf, out / "complexity.svg"),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
