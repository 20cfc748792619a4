"""A run's model, read back from what it left (package.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from app.catalogue import CandidateCard
from app.embedding.chance import seeded
from app.embedding.dataset import LabelKind
from app.embedding.pretrained import are_here, check_digest, pretrained
from app.errors import Unavailable
from app.training.names import FILES


@dataclass(frozen=True, slots=True)
class Model:
    """`network` is on the processor, in eval mode, and normalises as it was trained;
    `input_size` in pixels."""

    network: nn.Module
    classes: tuple[str, ...]
    label_kind: LabelKind
    input_size: int


def read_model(directory: Path, card: CandidateCard | None = None) -> Model:
    """Unavailable where it is not there, or not whole; InvalidRequest where it is not the one that
    `card` was made of."""
    path = directory / FILES["model"]
    try:
        config = json.loads((directory / FILES["config"]).read_text(encoding="utf-8"))
        if card is not None:
            check_digest(path, card.weights, card.name)
        made = config["pretrained_cfg"]
        with seeded(0):
            network: Any = timm.create_model(
                config["architecture"],
                num_classes=config["num_classes"],
                pretrained_cfg_overlay={"mean": tuple(made["mean"]), "std": tuple(made["std"])},
                **config["model_args"],
            )
        network.load_state_dict(load_file(path))
        return Model(
            network=network.eval(),
            classes=tuple(config["label_names"]),
            label_kind=config["label_kind"],
            input_size=made["input_size"][-1],
        )
    except (FileNotFoundError, KeyError, ValueError, SafetensorError) as error:
        raise Unavailable(
            "model-unreadable",
            f"The model of the run {directory.name} is not there, or not whole.",
            "Train it again.",
        ) from error


def must_be_fetched(card: CandidateCard) -> bool:
    """Whether `candidate_network` will go to the network for its weights."""
    source = card.weights.source
    return source.startswith("timm:") and not are_here(card.network, source)


def candidate_network(card: CandidateCard, directory: Path | None) -> nn.Module:
    """With the weights that it starts from and the classifier that came with them.

    `directory`  of the run whose model the candidate is, where it is one's (`run:`)

    Raises what `read_model` and `pretrained` do.
    """
    if directory is not None:
        return read_model(directory, card).network
    return pretrained(card.network, card.weights, card.input_size, card.name)
