"""The networks that are timed: a card with weights at hand, and its network for training."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from app.catalogue import ProbeCard, Weights

Pixels = npt.NDArray[np.uint8]
SEED = 0


def timed_card(card: ProbeCard, pixels: Pixels, directory: Path) -> ProbeCard:
    """The card where its weights need no download, else the same with seeded random ones.

    A pass takes as long with any weights. For what else is measured, random networks are made
    lively: scales and shifts are drawn, and the batch norms' statistics are those of `pixels`
    (N, S, S, 3), so that no layer is silent and none blows up. They lie in `directory`.
    """
    if not card.weights.source.startswith("timm:"):
        return card
    torch.manual_seed(SEED)
    network = plain_network(card)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0.0, 0.2)
        norm.momentum = None  # statistics become plain averages
    with torch.no_grad():
        network.train()(_network_input(card, pixels))
    path = directory / f"{card.name}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    weights = Weights(
        source=f"file:{path}", sha256=hashlib.sha256(path.read_bytes()).hexdigest(), order="name"
    )
    return card.model_copy(update={"weights": weights, "digest": None})


def plain_network(card: ProbeCard, n_classes: int | None = None) -> nn.Module:
    """timm's own network at the card's input size, with random weights and nothing folded."""
    default = timm.get_pretrained_cfg(card.network, allow_unregistered=True)
    options: dict[str, Any] = (
        {"img_size": card.input_size} if default and default.fixed_input_size else {}
    )
    if n_classes is not None:
        options["num_classes"] = n_classes
    network: nn.Module = timm.create_model(card.network, **options)
    return network


def _network_input(card: ProbeCard, pixels: Pixels) -> Tensor:
    shape = (1, 3, 1, 1)
    images = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255
    return (images - torch.tensor(card.mean).view(shape)) / torch.tensor(card.std).view(shape)
