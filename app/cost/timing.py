"""Steps of a candidate as they were timed on a device: what its phases take, decoding apart.

A run of the same network is taken to need as long an image as the steps did, so they are timed with
the batch of the recipe; the doubt is how steps differed among themselves, and that a run of hours
may be slower than one of seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from app.cost.features import Phase
from app.errors import InvalidRequest

Bound = Literal["low", "typical", "high"]

SUSTAINED = 1.25
"""A long run may take so many times longer than the slow ones of a few steps: processors get hot,
caches are shared."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds of a batch: the mean, and the 10th and 90th percentile of those that were timed, the
    latter no less than the mean. A run takes as many times the mean as it has batches."""

    low: float
    typical: float
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.low <= self.typical <= self.high and isfinite(self.high)):
            raise InvalidRequest(
                "timing-malformed",
                f"Seconds of {self.low:g}, {self.typical:g} and {self.high:g} are no spread.",
                "Send finite numbers above 0 that do not fall.",
            )


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one candidate on one device, images of its input size, without reading them.

    `batch_size`       images in a batch
    `step_seconds`     of a batch: forward, backward, optimiser, every weight trained
    `forward_seconds`  of a batch through the network alone, without gradients
    """

    batch_size: int
    step_seconds: Spread
    forward_seconds: Spread

    def seconds(self, phase: Phase, bound: Bound) -> float | None:
        """What the network takes in a phase; None in one that was not timed."""
        of_batch = {
            "training": self.step_seconds,
            "evaluation": self.forward_seconds,
            "features": self.forward_seconds,
        }.get(phase.name)
        if of_batch is None:
            return None
        batches = phase.decoded_images / self.batch_size
        sustained = SUSTAINED if bound == "high" else 1.0
        return batches * float(getattr(of_batch, bound)) * sustained
