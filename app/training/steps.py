"""What a training step and a forward pass of a network take on this machine.

Weights are random, as are the images, which lie in memory: what is timed is the network alone, not
what reads its images. Classes, fifty of them, hardly count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import timm
import torch
from torch import nn

from app.catalogue import CandidateCard
from app.cost.timing import Spread, Timing
from app.embedding.batches import is_out_of_memory
from app.embedding.chance import seeded
from app.embedding.pretrained import size_options
from app.embedding.tf32 import tf32
from app.errors import InvalidRequest, Unavailable
from app.training.precision import autocast

STEPS = 25
WARM_UP = 2
LEAST_STEPS = 3
N_CLASSES = 50
PERCENTILES = (10, 90)


def time_steps(
    candidate: CandidateCard,
    device: torch.device,
    precision: str,
    *,
    batch_size: int,
    steps: int = STEPS,
    most_seconds: float = float("inf"),
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> Timing:
    """`steps` training steps of AdamW and as many forward passes, after a few that do not count.

    `precision`     fp32, tf32, or bf16 and fp16 by autocast
    `most_seconds`  once LEAST_STEPS are timed, no more begin after so long, training and forward
                    passes apart
    `on_step`       how many batches of how many are through

    Raises InvalidRequest for a network that timm does not know or whose images have another size,
    Unavailable where memory does not hold the batch.
    """
    try:
        network = _network(candidate).to(device).to(memory_format=torch.channels_last)
        clock = _Clock(device, steps, most_seconds, on_step)
        with tf32(precision == "tf32"):
            training = clock.timed(_training(network, candidate, device, precision, batch_size))
            forward = clock.timed(_forward(network, candidate, device, precision, batch_size))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise Unavailable(
            "memory-exhausted",
            f"A training step of {candidate.name} with {batch_size} images does not fit in memory.",
            "Time it with a smaller batch.",
        ) from error
    return Timing(batch_size, training, forward)


class _Clock:
    def __init__(
        self,
        device: torch.device,
        steps: int,
        most_seconds: float,
        on_step: Callable[[int, int], None],
    ) -> None:
        self._device, self._steps, self._most = device, steps, most_seconds
        self._on_step, self._done = on_step, 0

    def timed(self, batches: Iterator[None]) -> Spread:
        """Of batches, each computed when it is asked for."""
        taken: list[float] = []
        began = 0.0
        for number in range(WARM_UP + self._steps):
            started = time.perf_counter()
            next(batches)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            ended = time.perf_counter()
            self._done += 1
            self._on_step(self._done, 2 * (WARM_UP + self._steps))
            if number < WARM_UP:
                began = ended
                continue
            taken.append(ended - started)
            if len(taken) >= LEAST_STEPS and ended - began > self._most:
                break
        low, high = np.percentile(taken, PERCENTILES)
        mean = float(np.mean(taken))
        return Spread(min(float(low), mean), mean, max(float(high), mean))


def _network(candidate: CandidateCard) -> nn.Module:
    try:
        size = size_options(candidate.network, candidate.input_size)
        with seeded(0):
            made: nn.Module = timm.create_model(candidate.network, num_classes=N_CLASSES, **size)
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise InvalidRequest(
            "network-unknown",
            f"timm has no network {candidate.network!r}.",
            "Name one that `timm.list_models()` tells in the card's `network`.",
        ) from error
    return made


def _training(
    network: nn.Module, candidate: CandidateCard, device: torch.device, precision: str, batch: int
) -> Iterator[None]:
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)
    images, labels = _images(candidate, device, batch)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    while True:
        optimiser.zero_grad(set_to_none=True)
        with autocast(device, precision):
            loss = nn.functional.cross_entropy(network(images), labels)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimiser)
        scaler.update()
        yield


def _forward(
    network: nn.Module, candidate: CandidateCard, device: torch.device, precision: str, batch: int
) -> Iterator[None]:
    network.eval()
    images, _ = _images(candidate, device, batch)
    while True:
        with torch.inference_mode(), autocast(device, precision):
            network(images)
        yield


def _images(
    candidate: CandidateCard, device: torch.device, batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = candidate.input_size
    images = torch.rand(batch, 3, size, size, generator=generator)
    labels = torch.randint(N_CLASSES, (batch,), generator=generator)
    return images.to(device, memory_format=torch.channels_last), labels.to(device)
