"""How much of its roofline published training reaches: the efficiencies of the GPUs' cards.

    python -m benchmarks.roofline benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv \\
        benchmark-train-amp-nchw-pt112-cu113-rtx3090.csv --device rtx-3090

The files are timm's training throughputs (repository huggingface/pytorch-image-models, `results/`);
a candidate is compared where a file holds its network at its input size. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from app.catalogue import CandidateCard, DeviceCard, RecipeCard, get_card, load_cards
from app.cost.features import Phase, TaskFacts, workload
from app.cost.predictor import roofline_seconds
from app.settings import shared_directory

CLASSES = 1000


def shares(table: Path, candidates: list[CandidateCard], device: DeviceCard) -> dict[str, float]:
    """Network -> least time of a training step on `device` over the published one."""
    with table.open(encoding="utf-8", newline="") as file:
        published = {
            (row["model"], int(row["train_img_size"])): row for row in csv.DictReader(file)
        }
    found = {}
    for candidate in candidates:
        row = published.get((candidate.network, candidate.input_size))
        if row is not None:
            batch_size = int(row["train_batch_size"])
            seconds = batch_size / float(row["train_samples_per_sec"])
            found[candidate.network] = least_step_seconds(candidate, device, batch_size) / seconds
    return found


def least_step_seconds(candidate: CandidateCard, device: DeviceCard, batch_size: int) -> float:
    """One training step of the whole network, as peak FLOP/s and bandwidth allow it."""
    return roofline_seconds(training_step(candidate, batch_size, "sgd"), device)


def training_step(
    candidate: CandidateCard, batch_size: int, optimiser: Literal["adamw", "sgd"]
) -> Phase:
    """Of the whole network, its images read already."""
    recipe = RecipeCard(
        name="one-step",
        description="one batch, once",
        scope="full",
        optimiser=optimiser,
        learning_rate=0.01,
        weight_decay=0.0,
        schedule="constant",
        batch_size=batch_size,
        epochs=1,
        evaluation_share=0.0,
    )
    task = TaskFacts(batch_size, CLASSES, None, "single_label")
    return replace(workload(task, candidate, recipe).phases[0], decoded_images=0, decoding=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tables", nargs="+", type=Path, help="timm's benchmark-train-*.csv")
    parser.add_argument("--device", default="rtx-3090", help="card of the device they ran on")
    arguments = parser.parse_args()
    models = shared_directory("models")
    device = get_card(models, DeviceCard, arguments.device)
    candidates = list(load_cards(models, CandidateCard).values())
    every: list[float] = []
    for table in arguments.tables:
        found = shares(table, candidates, device)
        for network, share in sorted(found.items()):
            print(f"{table.name} {network:35} {share:.2f}")
        every.extend(found.values())
    low, median, high = np.quantile(every, [0.05, 0.5, 0.95])
    print(
        json.dumps(
            {
                "device": device.name,
                "runs": len(every),
                "share_p05": round(float(low), 3),
                "share_p50": round(float(median), 3),
                "share_p95": round(float(high), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
