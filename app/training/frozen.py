"""What a network makes of images as it stands: features, and what its own classifier says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from app.embedding.tf32 import tf32
from app.errors import InvalidRequest
from app.training.precision import autocast


def moved(inputs: Tensor, device: torch.device) -> Tensor:
    """To the device; images with their channels last."""
    layout = torch.channels_last if inputs.ndim == 4 else torch.preserve_format
    return inputs.to(device, memory_format=layout, non_blocking=True)


def frozen_outputs(
    network: Any, inputs: Iterable[Tensor], device: torch.device, precision: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features (B, d) before the classifier and logits (B, K) after it, float32 on the processor,
    batch by batch. A network without a classifier gives its features twice.

    `network`  timm's, in eval mode, on the device

    Raises InvalidRequest for one whose classifier is not the last thing that it does.
    """
    checked = False
    for batch in inputs:
        seen = moved(batch, device)
        with torch.inference_mode(), tf32(precision == "tf32"), autocast(device, precision):
            features = network.forward_head(network.forward_features(seen), pre_logits=True)
            logits = network.get_classifier()(features)
            if not checked:
                _require_same(logits, network(seen), network)
                checked = True
        yield features.float().cpu(), logits.float().cpu()


def _require_same(logits: Tensor, wanted: Tensor, network: nn.Module) -> None:
    if logits.shape != wanted.shape or not torch.allclose(logits, wanted, rtol=1e-2, atol=1e-2):
        raise InvalidRequest(
            "network-unsupported",
            f"The classifier of {type(network).__name__} is not all that follows its features.",
            "Train it by a recipe whose features are not cached; nothing is told of it before.",
        )
