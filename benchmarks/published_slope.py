"""Measures how fine-tuned accuracy follows published accuracy: the prior slope of published.py.

    python -m benchmarks.published_slope tllib_runs.csv

An outcome table of torchvision's ImageNet models, each fine-tuned on every task. On the logit
scale, accuracy less its task's mean is regressed on top-1 accuracy less the models' mean, for every
task and pooled. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.cost.cells import make_cells, to_logit
from app.cost.outcome_table import kind_of, read_outcomes

TOP1_PERCENT = {
    "densenet121": 74.43,
    "densenet169": 75.60,
    "densenet201": 76.90,
    "googlenet": 69.78,
    "inception_v3": 77.29,
    "mnasnet1_0": 73.46,
    "mobilenet_v2": 71.88,
    "resnet50": 76.13,
    "resnet101": 77.37,
    "resnet152": 78.31,
}
"""Of torchvision's first weights (IMAGENET1K_V1), as its documentation lists them."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", type=Path, help="outcomes of these models, CSV or Parquet")
    path: Path = parser.parse_args(arguments).table
    cells = make_cells(read_outcomes(path, kind_of(path)), "task")
    known = [name in TOP1_PERCENT for name in cells.models]
    published = to_logit(np.array([TOP1_PERCENT.get(name, 50.0) / 100 for name in cells.models]))
    slopes, x, y = {}, [], []
    for number, (task, _, _) in enumerate(cells.contests):
        rows = np.flatnonzero((cells.contest == number) & np.array(known)[cells.model])
        away, reach = published[cells.model[rows]], cells.reach[rows]
        x.append(away - away.mean())
        y.append(reach - reach.mean())
        slopes[task] = float(x[-1] @ y[-1] / (x[-1] @ x[-1]))
        print(f"{task:16}{slopes[task]:6.2f}   correlation {np.corrcoef(x[-1], y[-1])[0, 1]:5.2f}")
    every_x, every_y = np.concatenate(x), np.concatenate(y)
    slope = float(every_x @ every_y / (every_x @ every_x))
    left = float(np.std(every_y - slope * every_x))
    print(f"{'pooled':16}{slope:6.2f}   {left:.2f} logits left of {np.std(every_y):.2f}")
    print(json.dumps({"slope": slope, "residual_sd": left, "by_task": slopes}))


if __name__ == "__main__":
    main()
