"""The whole job, from an archive to an embedding, beside decoding and one step of training."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

from app.embedding.batches import batch_size_for
from app.embedding.dataset import LabelledImages
from app.embedding.embed import Progress, embed_images
from app.embedding.probe import Probe
from benchmarks.speed.passes import TrainingStep, ratio, seconds_of
from benchmarks.speed.pictures import photographs, read


@dataclass(frozen=True, slots=True)
class JobSeconds:
    """Rounds of one job and of what it is held against.

    `phases`    a round's seconds by phase: `decode`, those that embed_images tells of, and `rest`
    `decode`    decoding the same archive by itself
    `training`  forward and backward with weight gradients over all images, batch by batch
    `draws`     backward passes an image that the job took for the vector
    """

    phases: tuple[Counter[str], ...]
    decode: tuple[float, ...]
    training: tuple[float, ...]
    draws: int
    batch_size: int
    n_images: int
    archive_bytes: int

    @property
    def without_head(self) -> tuple[float, ...]:
        return tuple(sum(phases.values()) - phases["head"] for phases in self.phases)

    @property
    def over_decode_and_training(self) -> float:
        plain = [a + b for a, b in zip(self.decode, self.training, strict=True)]
        return ratio(self.without_head, plain)


def time_job(probe: Probe, *, n_images: int, rounds: int) -> JobSeconds:
    """In default settings; loading and warming up are part of neither side."""
    archive = photographs(n_images)
    size, device = probe.card.input_size, probe.device
    batch_size = batch_size_for(probe, None)
    images = read(archive, size)
    step = TrainingStep(probe.card, len(images.classes), device)
    probe.warm_up()
    _train(step, probe, images, np.arange(min(batch_size, n_images)), batch_size)

    phases, decode, training = [], [], []
    order = np.random.default_rng(0).permutation(len(images.digests))
    draws = 0
    for _ in range(rounds):
        clock = _PhaseClock()
        decoded = read(archive, size)
        clock.close("decode")
        embedding = embed_images(decoded, probe, on_progress=clock.hear)
        clock.close("rest")
        phases.append(clock.seconds)
        draws = embedding.provenance.draws
        decode.append(seconds_of(lambda: read(archive, size), device))
        training.append(seconds_of(lambda: _train(step, probe, images, order, batch_size), device))
    return JobSeconds(
        tuple(phases),
        tuple(decode),
        tuple(training),
        draws,
        batch_size,
        len(images.digests),
        len(archive),
    )


def _train(
    step: TrainingStep,
    probe: Probe,
    images: LabelledImages,
    order: np.ndarray[tuple[int], np.dtype[np.int64]],
    batch_size: int,
) -> None:
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        step(probe.normalise(images.pixels[rows]), images.labels[rows])


class _PhaseClock:
    """Time goes to the phase that is named when it is over."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._since = time.perf_counter()

    def hear(self, progress: Progress) -> None:
        self.close(progress.phase)

    def close(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] += now - self._since  # type: ignore[assignment]
        self._since = now
