"""One fine-tuning run: a network and a task's images to a learning curve, a result and its cost.

The whole network is trained by AdamW at a constant rate after a warm-up, on randomly shifted
images, and stops when the validation loss has not fallen for a while: the schedule does not know
when the run will end, so epochs say how long the task takes. Judged are the weights of the epoch
with the least validation loss. One thread, so that two runs beside each other cost what they cost
alone but for shared caches; `seconds` is the process's CPU time.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from app.embedding.head import fit_head
from app.embedding.penalty import PENALTIES
from benchmarks.grid.tasks import GridTask, Images, Labels, Pixels

BATCH_SIZE = 16
BATCH_NORM_MOMENTUM = 0.3  # an epoch has some six batches: statistics must not lag behind weights
JUDGED_TOGETHER = 64
MAX_SHIFT = 4  # pixels
MIB = 2**20

Features = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the whole network is trained; a change of these makes other cells.

    `patience`  epochs without a lower validation loss after which a run has converged
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    max_epochs: int = 15
    patience: int = 4


@dataclass(frozen=True, slots=True)
class Epoch:
    """Mean losses in nats; `validation_accuracy` is a share."""

    training_loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, slots=True)
class Run:
    """What a run gave, and what it took.

    `accuracy`  share of the judged images
    """

    accuracy: float
    right: int
    judged: int
    n_train: int
    epochs: int | None
    steps: int | None
    seconds: float
    memory_mib: float | None
    stop_reason: Literal["converged", "cap"]
    curve: tuple[Epoch, ...] = ()


def fine_tune(network: nn.Module, task: GridTask, schedule: Schedule, seed: int) -> Run:
    """Trains the network, whose classifier is new, and leaves it with the weights judged."""
    training, validation = task.parts
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = BATCH_NORM_MOMENTUM
    memory = PeakMemory()
    started = time.process_time()
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    batches = math.ceil(len(training.labels) / BATCH_SIZE)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimiser, 0.1, total_iters=batches)
    generator = np.random.default_rng(seed)
    curve: list[Epoch] = []
    best, best_weights = math.inf, copy.deepcopy(network.state_dict())
    best_epoch = 0
    while len(curve) < schedule.max_epochs and len(curve) - best_epoch < schedule.patience:
        network.train()
        losses = []
        for pixels, labels in _shuffled(training, generator):
            optimiser.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(network(normalised(pixels)), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            warm_up.step()
            losses.append(loss.item())
        logits = outputs(network, validation.pixels)
        wanted = torch.from_numpy(validation.labels)
        held_out = nn.functional.cross_entropy(logits, wanted).item()
        right = (logits.argmax(1) == wanted).float().mean().item()
        curve.append(Epoch(float(np.mean(losses)), held_out, right))
        if held_out < best:
            best, best_epoch = held_out, len(curve)
            best_weights = copy.deepcopy(network.state_dict())
    network.load_state_dict(best_weights)
    seconds = time.process_time() - started
    found = outputs(network, task.judge.pixels).argmax(1).numpy()
    stopped = len(curve) - best_epoch >= schedule.patience
    return Run(
        **_judged(found, task.judge.labels),
        n_train=len(task.learn.labels),
        epochs=len(curve),
        steps=len(curve) * batches,
        seconds=seconds,
        memory_mib=memory.mib(),
        stop_reason="converged" if stopped else "cap",
        curve=tuple(curve),
    )


def fit_classifier(network: nn.Module, task: GridTask) -> tuple[Run, Features]:
    """The calibrated head of the embedding on the untrained network's features; those (N, d) too.

    The network has no classifier.
    """
    memory = PeakMemory()
    started = time.process_time()
    learn = task.learn
    features = outputs(network, learn.pixels).numpy()
    head = fit_head(
        features, learn.labels, len(task.classes), learn.digests, penalties=PENALTIES[::2]
    )
    seconds = time.process_time() - started
    judged = outputs(network, task.judge.pixels).numpy()
    found = head.probabilities(judged.astype(np.float64)).argmax(axis=1)
    run = Run(
        **_judged(found, task.judge.labels),
        n_train=len(learn.labels),
        epochs=None,
        steps=None,
        seconds=seconds,
        memory_mib=memory.mib(),
        stop_reason="converged",
    )
    return run, features


def outputs(network: nn.Module, pixels: Pixels) -> Tensor:
    """(N, ...) of the network in eval mode, without a graph."""
    network.eval()
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(pixels), JUDGED_TOGETHER)
        return torch.cat([network(normalised(part)) for part in parts])


def normalised(pixels: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) in [-1, 1], as the cards of Lite say."""
    images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return images.contiguous(memory_format=torch.channels_last)


def _shuffled(images: Images, generator: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Whole batches, each image once, and a few of them twice where the last would be short."""
    n = len(images.labels)
    order = generator.permutation(n)
    order = np.resize(order, math.ceil(n / BATCH_SIZE) * BATCH_SIZE)
    for rows in order.reshape(-1, BATCH_SIZE):
        pixels = np.stack([_shifted(images.pixels[row], generator) for row in rows])
        yield torch.from_numpy(pixels), torch.from_numpy(images.labels[rows])


def _shifted(image: npt.NDArray[Any], generator: np.random.Generator) -> npt.NDArray[Any]:
    """Moved by at most MAX_SHIFT pixels each way; the border goes on outwards."""
    size = len(image)
    padded = np.pad(image, ((MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT), (0, 0)), "edge")
    top, left = generator.integers(0, 2 * MAX_SHIFT + 1, 2)
    return padded[top : top + size, left : left + size]


def _judged(found: npt.NDArray[np.int64], labels: Labels) -> dict[str, Any]:
    right = int((found == labels).sum())
    return {"accuracy": right / len(labels), "right": right, "judged": len(labels)}


class PeakMemory:
    """The process's largest resident size since now, where Linux can forget the peak before."""

    _refs = Path("/proc/self/clear_refs")
    _status = Path("/proc/self/status")

    def __init__(self) -> None:
        self._known = self._refs.exists()
        if self._known:
            self._refs.write_text("5")

    def mib(self) -> float | None:
        if not self._known:
            return None
        lines = self._status.read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        return kib * 1024 / MIB
