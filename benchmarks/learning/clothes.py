"""Fashion-MNIST's ten thousand test pictures: some to learn from, others to be judged by."""

from __future__ import annotations

from pathlib import Path

import torch

from app.reference import fashion
from benchmarks.learning.pictures import Pictures, made_up_of


def clothes(cache_dir: Path, learnt: int, judged: int) -> Pictures:
    """28 pixels wide, of ten kinds."""
    images, labels = fashion.pictures_of(cache_dir)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(images.copy())[order]
    kinds = torch.from_numpy(labels.copy())[order]
    rest = slice(learnt, learnt + judged)
    return made_up_of(pixels[:learnt], kinds[:learnt], pixels[rest], kinds[rest])
