"""What a candidate's frozen network tells of a labelled set, from the images to the scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from app.cost.score_names import Score
from app.cost.scores import scores
from app.embedding.dataset import LabelledImages
from app.training.frozen import frozen_outputs
from app.training.images import plain_inputs, plain_transform

BATCH_SIZE = 32


def told_by(
    network: Any,
    images: LabelledImages,
    device: torch.device,
    *,
    has_classes: bool = True,
    on_images: Callable[[int], None] = lambda _: None,
) -> dict[Score, float]:
    """Of images at the network's size.

    `has_classes`  its classifier tells one class an image, where it has one at all
    `on_images`    called with the number of images seen; what it raises ends the work

    Raises what `frozen_outputs` and `scores` do.
    """
    network.eval().to(device=device, memory_format=torch.channels_last)
    transform = plain_transform(network, images.pixels.shape[1])
    rows = np.arange(len(images.digests))
    features: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    inputs = plain_inputs(images.pixels, rows, transform, BATCH_SIZE)
    for some, theirs in frozen_outputs(network, inputs, device, "fp32"):
        features.append(some)
        logits.append(theirs)
        on_images(sum(map(len, features)))
    has_classes = has_classes and network.num_classes > 0
    of_source = torch.cat(logits).softmax(dim=1).numpy() if has_classes else None
    return scores(torch.cat(features).numpy(), images.labels, of_source)
