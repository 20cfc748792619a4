"""Fashion-MNIST's ten thousand test pictures: some to learn from, others to be judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from app.reference import fashion

BLURRED_TO = 7
"""Pixels, a quarter of the width: the deficit of the seed experiment is 8 of 32."""


@dataclass(frozen=True, slots=True)
class Clothes:
    """Pixels (N, 1, 28, 28) of zero mean and unit variance; labels (N,) of ten kinds."""

    pixels: Tensor
    labels: Tensor
    judged_pixels: Tensor
    judged_labels: Tensor


def clothes(cache_dir: Path, learnt: int, judged: int) -> Clothes:
    images, labels = fashion.pictures_of(cache_dir)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(images.copy())[order].float()[:, None]
    pixels = (pixels - pixels[:learnt].mean()) / pixels[:learnt].std()
    kinds = torch.from_numpy(labels.copy())[order].long()
    return Clothes(
        pixels[:learnt],
        kinds[:learnt],
        pixels[learnt : learnt + judged],
        kinds[learnt : learnt + judged],
    )


def blurred(pixels: Tensor) -> Tensor:
    """Fine detail taken away, by way of BLURRED_TO pixels."""
    small = interpolate(pixels, BLURRED_TO, mode="area")
    return interpolate(small, pixels.shape[-1], mode="bilinear", align_corners=False)
