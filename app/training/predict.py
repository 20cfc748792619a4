"""What a run's model says of images: plain probabilities of its classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from app.embedding.image import Pixels
from app.embedding.tf32 import tf32
from app.training.frozen import moved
from app.training.images import plain_inputs, plain_transform
from app.training.model import Model
from app.training.precision import autocast
from app.training.verdict import Array


def predict(
    model: Model,
    pixels: Pixels,
    *,
    device: torch.device,
    precision: str = "fp32",
    batch_size: int,
    on_images: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[Array]:
    """(B, C) float64 a batch: softmax, or for multi-label a sigmoid of every class by itself; seen
    and computed as images are that judge a run. Nothing calibrates them.

    `pixels`     (N, S, S, 3) at the model's input size
    `on_images`  called with images done and their number; what it raises ends the work
    """
    network: Any = model.network
    network.to(device=device, memory_format=torch.channels_last)
    transform = plain_transform(network, model.input_size)
    done = 0
    for inputs in plain_inputs(pixels, np.arange(len(pixels)), transform, batch_size):
        with torch.inference_mode(), tf32(precision == "tf32"), autocast(device, precision):
            logits = network(moved(inputs, device)).float().cpu().double()
        probabilities = logits.sigmoid() if model.label_kind == "multi_label" else logits.softmax(1)
        yield probabilities.numpy()
        done += len(inputs)
        on_images(done, len(pixels))
