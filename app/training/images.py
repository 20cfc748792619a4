"""A task's images as batches for a network: augmented for training, plain for judging."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from app.embedding.chance import seeded
from app.embedding.dataset import LabelledImages
from app.embedding.image import Pixels
from app.training.frozen import frozen_outputs
from app.training.split import Rows

LEAST_CROP = 0.6
"""A crop keeps this share of an image at least: what matters may lie anywhere in a small set's."""
JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Batches:
    """Of some rows of a labelled set, as the network's own preprocessing has them.

    An image's augmentation derives from the seed, the epoch and its row alone, so that a run that
    is taken up again sees the same images.
    """

    images: LabelledImages
    augment: Any
    plain: Any
    seed: int

    @classmethod
    def of(cls, images: LabelledImages, network: nn.Module, seed: int) -> Batches:
        size = images.pixels.shape[1]
        augment: Any = create_transform(
            **_common(network, size), is_training=True, color_jitter=JITTER
        )
        augment.transforms[0] = RandomResizedCrop(  # timm's own draws from Python's generator
            size, (LEAST_CROP, 1.0), interpolation=InterpolationMode.BICUBIC
        )
        return cls(images, augment, plain_transform(network, size), seed)

    def training(self, rows: Rows, batch_size: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for part in shuffled(rows, batch_size, self.seed, epoch):
            yield torch.stack([self._augmented(row, epoch) for row in part]), self.targets(part)

    def judging(self, rows: Rows, batch_size: int) -> Iterator[Tensor]:
        """Inputs alone, in the order of the rows."""
        return plain_inputs(self.images.pixels, rows, self.plain, batch_size)

    def targets(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """(B,) class numbers, or (B, C) floats for multi-label."""
        labels = self.images.labels[rows]
        return torch.from_numpy(labels.astype(np.float32 if labels.ndim == 2 else np.int64))

    def _augmented(self, row: int, epoch: int) -> Tensor:
        number = int(np.random.default_rng([self.seed, epoch, int(row)]).integers(2**31))
        with seeded(number):
            seen: Tensor = self.augment(_picture(self.images.pixels[row]))
        return seen


@dataclass(frozen=True, slots=True)
class Cached:
    """The same rows as features (N, d) of a network that stays as it is, computed once."""

    features: Tensor
    source: Batches

    @classmethod
    def of(
        cls,
        source: Batches,
        network: Any,
        batch_size: int,
        device: torch.device,
        precision: str,
        on_features: Callable[[int, int], None],
    ) -> Cached:
        """InvalidRequest for a network whose classifier is not the last thing that it does."""
        rows = np.arange(len(source.images.digests))
        found: list[Tensor] = []
        inputs = source.judging(rows, batch_size)
        for features, _ in frozen_outputs(network, inputs, device, precision):
            found.append(features)
            on_features(sum(map(len, found)), len(rows))
        return cls(torch.cat(found), source)

    def training(self, rows: Rows, batch_size: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for part in shuffled(rows, batch_size, self.source.seed, epoch):
            yield self.features[part], self.source.targets(part)

    def judging(self, rows: Rows, batch_size: int) -> Iterator[Tensor]:
        yield from torch.split(self.features[rows], batch_size)

    def targets(self, rows: Rows) -> Tensor:
        return self.source.targets(rows)


def plain_transform(network: nn.Module, size: int) -> Any:
    """How a network sees an image of (size, size) pixels where nothing is augmented."""
    return create_transform(**_common(network, size), crop_pct=1.0)


def plain_inputs(pixels: Pixels, rows: Rows, transform: Any, batch_size: int) -> Iterator[Tensor]:
    """Batches of these rows, in their order."""
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        yield torch.stack([transform(_picture(pixels[row])) for row in part])


def _common(network: nn.Module, size: int) -> dict[str, Any]:
    config = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
    return {
        "input_size": size,
        "mean": config["mean"],
        "std": config["std"],
        "interpolation": "bicubic",
    }


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.asarray(pixels))


def shuffled(rows: Rows, batch_size: int, seed: int, epoch: int) -> list[Rows]:
    """Every row once, in an order of the epoch's own, in batches of nearly one size: a last one of
    a single image would break a network's normalisation."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return np.array_split(order, -(-len(order) // batch_size))
