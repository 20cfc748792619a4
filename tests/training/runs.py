"""Small fine-tuning runs: a network of kilobytes on patches of noise that differ by their hue."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from app.catalogue import CandidateCard, RecipeCard, Weights
from app.embedding.dataset import LabelledImages
from app.training.finetune import Run, fine_tune
from tests.cost import cards

FULL = cards.FULL.model_copy(
    update={
        "name": "small",
        "learning_rate": 3e-3,
        "weight_decay": 0.01,
        "batch_size": 16,
        "epochs": 4,
        "evaluation_share": 0.25,
    }
)
HEAD = FULL.model_copy(
    update={"scope": "head", "features_cached": True, "epochs": 40, "learning_rate": 0.03}
)


def candidate(directory: Path, network: str = "test_resnet") -> CandidateCard:
    """Its weights, seeded, lie in `directory`."""
    torch.manual_seed(0)
    options = {"img_size": 32} if network == "test_vit" else {}
    path = directory / f"{network}.safetensors"
    if not path.exists():
        save_file(timm.create_model(network, **options).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return cards.CANDIDATE.model_copy(
        update={
            "network": network,
            "input_size": 32,
            "weights": Weights(source=f"file:{path}", sha256=digest),
        }
    )


def hues(n: int = 90, multi_label: bool = False) -> LabelledImages:
    """Red, green or blue, and with several labels also light or dark."""
    random = np.random.default_rng(0)
    labels = np.arange(n) % 3
    pixels = random.integers(0, 100, (n, 32, 32, 3))
    pixels[np.arange(n), :, :, labels] += 100
    light = np.arange(n) % 2 == 0
    if multi_label:
        pixels[light] += 50
    marks = np.stack([labels == 0, labels == 1, labels == 2, light], axis=1)
    pixels = pixels.astype(np.uint8)
    return LabelledImages(
        pixels=pixels,
        labels=marks if multi_label else labels,
        classes=("red", "green", "blue", "light")[: 4 if multi_label else 3],
        digests=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in pixels),
        label_kind="multi_label" if multi_label else "single_label",
    )


def run(directory: Path, recipe: RecipeCard = FULL, **asked: Any) -> Run:
    """In a folder of its own below `directory`, if `into` names one."""
    into = directory / asked.pop("into", "run")
    into.mkdir(exist_ok=True)
    images = asked.pop("images", None) or hues()
    start = asked.pop("start", None) or candidate(directory)
    device = asked.pop("device", torch.device("cpu"))
    return fine_tune(images, start, recipe, into, device=device, **asked)
