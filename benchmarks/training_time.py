"""Times whole fine-tuning runs of the shipped recipes, beside what a device's card counts of them.

    python -m benchmarks.training_time                            two candidates, on this processor
    python -m benchmarks.training_time --device h100 --on cuda    on a GPU

Weights are random and so are the images, which lie in memory: a run's time hangs on neither. What
a card says of start-up and of decoding image files is left out of its count. `timed over counted`
is the run's seconds over the typical of the count; `inside`, whether they lie in its range. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from app.catalogue import CandidateCard, DeviceCard, RecipeCard, Weights, get_card
from app.cost.features import TaskFacts, workload
from app.cost.predictor import counted_seconds
from app.embedding.dataset import LabelledImages
from app.embedding.pretrained import size_options
from app.embedding.probe import choose_device
from app.settings import shared_directory
from app.training.finetune import fine_tune

CANDIDATES = ("tf_efficientnet_lite0.in1k", "resnet18.a1_in1k")
RECIPES = ("head_only", "full")
N_CLASSES = 10


def made_up(n_images: int, size: int) -> LabelledImages:
    random = np.random.default_rng(0)
    return LabelledImages(
        pixels=random.integers(0, 256, (n_images, size, size, 3), dtype=np.uint8),
        labels=np.arange(n_images) % N_CLASSES,
        classes=tuple(map(str, range(N_CLASSES))),
        digests=tuple(hashlib.sha256(str(i).encode()).hexdigest() for i in range(n_images)),
        label_kind="single_label",
    )


def untrained(card: CandidateCard, directory: Path) -> CandidateCard:
    """With random weights in a file there, so that nothing is downloaded."""
    path = directory / "random.safetensors"
    made: Any = timm.create_model(card.network, **size_options(card.network, card.input_size))
    save_file(made.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return card.model_copy(update={"weights": Weights(source=f"file:{path}", sha256=digest)})


def row_of(
    card: CandidateCard, recipe: RecipeCard, device: DeviceCard, on: torch.device, n_images: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        run = fine_tune(
            made_up(n_images, card.input_size),
            untrained(card, Path(directory)),
            recipe,
            Path(directory),
            device=on,
            precision=device.precision,
        )
    facts = TaskFacts(n_images, N_CLASSES, None, "single_label")
    phases = [
        counted_seconds(replace(phase, decoding=0.0), device)
        for phase in workload(facts, card, recipe).phases
    ]
    low, typical, high = (
        sum(getattr(phase, bound) for phase in phases) for bound in ("low", "typical", "high")
    )
    return {
        "candidate": card.name,
        "recipe": recipe.name,
        "images": n_images,
        "epochs": len(run.curve),
        "seconds": round(run.seconds, 2),
        "counted": [round(each, 2) for each in (low, typical, high)],
        "timed_over_counted": round(run.seconds / typical, 2),
        "inside": low <= run.seconds <= high,
        "images_a_second": round(n_images * len(run.curve) / run.seconds),
        "memory_mib": run.memory_mib and round(run.memory_mib),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("candidates", nargs="*", metavar="CANDIDATE")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="RECIPE")
    parser.add_argument("--device", default="cpu-2core", help="the card of this machine")
    parser.add_argument("--on", default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    options = parser.parse_args(arguments)
    models = shared_directory("models")
    device = get_card(models, DeviceCard, options.device)
    on = choose_device(options.on)
    rows = []
    for name in options.candidates or CANDIDATES:
        card = get_card(models, CandidateCard, name)
        for recipe_name in options.recipes:
            recipe = get_card(models, RecipeCard, recipe_name)
            if options.epochs:
                recipe = recipe.model_copy(update={"epochs": options.epochs})
            row = row_of(card, recipe, device, on, options.images)
            rows.append(row)
            low, typical, high = row["counted"]
            print(
                f"{name:44} {recipe_name:12} {row['seconds']:8.1f} s, counted {typical:8.1f} "
                f"({low:.1f} to {high:.1f}), timed over counted {row['timed_over_counted']:5.2f}",
                flush=True,
            )
    here = torch.cuda.get_device_name(on) if on.type == "cuda" else "cpu"
    print(json.dumps({"device": device.name, "on": here, "runs": rows}))


if __name__ == "__main__":
    main()
