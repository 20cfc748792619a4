"""One pass over one batch: a training step, the Fisher's passes, the input's gradient alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from app.catalogue import ProbeCard
from app.embedding.dataset import LabelledImages
from app.embedding.distance import one_to_one
from app.embedding.fisher import estimate_fisher
from app.embedding.head import fit_head
from app.embedding.probe import Probe
from app.embedding.recorder import Recorder
from app.embedding.regression import Labels
from benchmarks.speed.networks import plain_network

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Timed:
    """What is run once a round, in the first `rounds` rounds."""

    run: Callable[[], object]
    rounds: int


class TrainingStep:
    """Forward and backward with weight gradients: fp32, train mode, channels-last, no optimiser."""

    def __init__(self, card: ProbeCard, n_classes: int, device: torch.device) -> None:
        network = plain_network(card, n_classes).train()
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._device = device

    def __call__(self, images: Tensor, labels: Labels) -> None:
        """`images` (B, 3, S, S) normalised, channels-last; `labels` (B,)."""
        self._network.zero_grad(set_to_none=True)
        targets = torch.tensor(labels, device=self._device)
        cross_entropy(self._network(images), targets).backward()  # type: ignore[no-untyped-call]


def fisher_pass(probe: Probe, pixels: Pixels) -> Callable[[], object]:
    """One forward and one backward pass of the estimator over a batch (B, S, S, 3)."""
    directions = np.random.default_rng(0).normal(size=(len(pixels), probe.n_features))

    def run() -> object:
        with Recorder(probe) as recorder:
            recorder.forward(pixels)
            return recorder.backward(directions)

    return run


def input_gradient(probe: Probe, pixels: Pixels) -> Callable[[], object]:
    """Forward and the gradient of the images alone, through the probe as it is kept."""

    def run() -> None:
        images = probe.normalise(pixels).requires_grad_()
        probe.network(images).sum().backward()

    return run


def interleaved(timed: Mapping[str, Timed], device: torch.device) -> dict[str, list[float]]:
    """Seconds of each, round by round; every second round in reversed order, all warmed up."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for measured in timed.values():
        seconds_of(measured.run, device)
    for number in range(max(measured.rounds for measured in timed.values())):
        for name in list(timed)[:: -1 if number % 2 else 1]:
            if number < timed[name].rounds:
                seconds[name].append(seconds_of(timed[name].run, device))
    return seconds


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    started = time.perf_counter()
    run()
    _finish(device)
    return time.perf_counter() - started


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median over rounds of the ratio within a round, which a busier spell does not change."""
    return statistics.median(a / b for a, b in zip(over, under, strict=False))


def distance_error(images: LabelledImages, probe: Probe, other: Probe, batch_size: int) -> float:
    """Cosine distance between a set's vectors by two probes, with one head and the same draws.

    The head is fitted on the features of `probe`.
    """
    starts = range(0, len(images.digests), batch_size)
    features = np.concatenate(
        [
            probe.features(images.pixels[start : start + batch_size]).float().numpy(force=True)
            for start in starts
        ]
    )
    head = fit_head(features, images.labels, len(images.classes), images.digests)
    vectors = [
        estimate_fisher(
            images,
            each,
            head,
            features,
            estimator="hutchinson",
            draws=1,
            tolerance=None,
            seed=0,
            batch_size=batch_size,
            on_batch=lambda _done: None,
        ).vector
        for each in (probe, other)
    ]
    epsilon = probe.card.epsilon
    return abs(float(one_to_one(vectors[0], vectors[1], "cosine", epsilon=epsilon)))


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
