"""Pictures to learn from, others to be judged by, and what is left of either in a blur."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import interpolate

BLURRED = 4
"""Times narrower than a picture is what a blurred one is made of: 8 pixels of 32 in the seed
experiment."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pixels (N, 1, S, S) of zero mean and unit variance; labels (N,) from 0 on."""

    pixels: Tensor
    labels: Tensor
    judged_pixels: Tensor
    judged_labels: Tensor

    @property
    def kinds(self) -> int:
        return int(self.labels.max()) + 1


def made_up_of(
    pixels: Tensor, labels: Tensor, judged_pixels: Tensor, judged_labels: Tensor
) -> Pictures:
    """Of grey values (N, S, S), normalised by those that are learnt from."""
    mean, deviation = pixels.float().mean(), pixels.float().std()
    seen, judged = (
        ((grey.float() - mean) / deviation)[:, None] for grey in (pixels, judged_pixels)
    )
    return Pictures(seen, labels.long(), judged, judged_labels.long())


def blurred(pixels: Tensor) -> Tensor:
    """Fine detail taken away, by way of a picture of fewer pixels."""
    small = interpolate(pixels, pixels.shape[-1] // BLURRED, mode="area")
    return interpolate(small, pixels.shape[-1], mode="bilinear", align_corners=False)
