"""A small all-convolutional network learns from nothing, and says now and then how it stands."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from app.training.information import information
from benchmarks.learning.clothes import Clothes, blurred

BATCH_SIZE = 128
LEARNING_RATE, DECAY, MOMENTUM, WEIGHT_DECAY = 0.05, 0.97, 0.9, 5e-4
"""Stochastic gradient descent; the rate falls by DECAY every epoch."""
TRACED_IMAGES = 256
KINDS = 10


@dataclass(frozen=True, slots=True)
class Look:
    """How the network stands after so many steps.

    `training_loss`  mean over the steps since the look before
    `information`    trace of the Fisher of all weights, on images learnt from, as they are shown
                     then; None where it was not asked for
    """

    step: int
    training_loss: float
    loss: float
    accuracy: float
    information: float | None


def network(width: int = 16) -> nn.Sequential:
    """After Springenberg et al., "Striving for simplicity: the all convolutional net", 2015."""

    def block(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(c_out), nn.ReLU()]

    return nn.Sequential(
        *block(1, width, 1),
        *block(width, width, 2),
        *block(width, 2 * width, 1),
        *block(2 * width, 2 * width, 2),
        *block(2 * width, 4 * width, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, KINDS),
    )


def steps_an_epoch(data: Clothes) -> int:
    return -(-len(data.labels) // BATCH_SIZE)


def learn(
    data: Clothes,
    seed: int,
    epochs: int,
    looks: Collection[int],
    *,
    is_blurred: Callable[[int], bool] = lambda _: False,
    traced: bool = False,
) -> list[Look]:
    """Looked at after as many steps as `looks` name, 0 for before the first.

    `is_blurred`  whether an epoch, counted from 0, sees blurred images. Judged is on clear ones
    """
    torch.manual_seed(seed)
    model = network().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, DECAY)
    views = {False: data.pixels, True: blurred(data.pixels)}
    told: list[Look] = []
    losses: list[float] = []
    step = 0

    def look(pixels: Tensor) -> None:
        if step in looks:
            trace = _information(model, pixels[:TRACED_IMAGES], seed) if traced else None
            mean = float(np.mean(losses)) if losses else float("nan")
            told.append(Look(step, mean, *_judged(model, data), trace))
            losses.clear()

    look(views[is_blurred(0)])
    for epoch in range(epochs):
        pixels = views[is_blurred(epoch)]
        for rows in torch.tensor_split(torch.randperm(len(pixels)), steps_an_epoch(data)):
            model.train()
            optimiser.zero_grad(set_to_none=True)
            loss = cross_entropy(model(pixels[rows]), data.labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.item())
            step += 1
            look(pixels)
        schedule.step()
    return told


def _judged(model: nn.Module, data: Clothes) -> tuple[float, float]:
    model.eval()
    with torch.inference_mode():
        logits = model(data.judged_pixels)
        right = (logits.argmax(1) == data.judged_labels).float().mean().item()
        return cross_entropy(logits, data.judged_labels).item(), right


def _information(model: nn.Module, pixels: Tensor, seed: int) -> float:
    names = [str(row) for row in range(len(pixels))]
    batches = [
        (pixels[start : start + BATCH_SIZE], names[start : start + BATCH_SIZE])
        for start in range(0, len(pixels), BATCH_SIZE)
    ]
    return information(model, batches, "single_label", seed=seed).total
