"""A network learns from nothing, and says now and then how it stands."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from app.training.information import information
from app.training.precision import autocast
from benchmarks.learning.networks import plain
from benchmarks.learning.pictures import Pictures, blurred

BATCH_SIZE = 128
LEARNING_RATE, DECAY, MOMENTUM, WEIGHT_DECAY = 0.05, 0.97, 0.9, 5e-4
"""Stochastic gradient descent; the rate falls by DECAY every epoch."""
TRACED_IMAGES = 256
JUDGED_AT_ONCE = 4096
CPU = torch.device("cpu")


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


def steps_an_epoch(data: Pictures) -> int:
    return -(-len(data.labels) // BATCH_SIZE)


def learn(
    data: Pictures,
    seed: int,
    epochs: int,
    looks: Collection[int],
    *,
    network: Callable[[int], nn.Module] = plain,
    decay: float = DECAY,
    is_blurred: Callable[[int], bool] = lambda _: False,
    traced: bool = False,
    device: torch.device = CPU,
) -> list[Look]:
    """Looked at after as many steps as `looks` name, 0 for before the first.

    `network`     made for so many kinds, its weights random
    `decay`       of the learning rate, from one epoch to the next
    `is_blurred`  whether an epoch, counted from 0, sees blurred images. Judged is on clear ones
    `device`      a GPU computes in bf16, by autocast
    """
    torch.manual_seed(seed)
    model = network(data.kinds).to(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, decay)
    labels = data.labels.to(device)
    views = {False: data.pixels.to(device), True: blurred(data.pixels).to(device)}
    judged = data.judged_pixels.to(device), data.judged_labels.to(device)
    precision = "bf16" if device.type == "cuda" else "fp32"
    told: list[Look] = []
    losses: list[Tensor] = []
    step = 0

    def look(pixels: Tensor) -> None:
        if step in looks:
            trace = _information(model, pixels[:TRACED_IMAGES], seed) if traced else None
            mean = float(np.mean(torch.stack(losses).tolist())) if losses else float("nan")
            with autocast(device, precision):
                told.append(Look(step, mean, *_judged(model, *judged), trace))
            losses.clear()

    look(views[is_blurred(0)])
    for epoch in range(epochs):
        pixels = views[is_blurred(epoch)]
        order = torch.randperm(len(pixels)).to(device)
        for rows in torch.tensor_split(order, steps_an_epoch(data)):
            model.train()
            optimiser.zero_grad(set_to_none=True)
            with autocast(device, precision):
                loss = cross_entropy(model(pixels[rows]), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.detach())
            step += 1
            look(pixels)
        schedule.step()
    return told


def _judged(model: nn.Module, pixels: Tensor, labels: Tensor) -> tuple[float, float]:
    model.eval()
    with torch.inference_mode():
        logits = torch.cat([model(part) for part in torch.split(pixels, JUDGED_AT_ONCE)]).float()
        right = (logits.argmax(1) == labels).float().mean().item()
        return cross_entropy(logits, labels).item(), right


def _information(model: nn.Module, pixels: Tensor, seed: int) -> float:
    names = [str(row) for row in range(len(pixels))]
    batches = [
        (pixels[start : start + BATCH_SIZE], names[start : start + BATCH_SIZE])
        for start in range(0, len(pixels), BATCH_SIZE)
    ]
    return information(model, batches, "single_label", seed=seed).total
