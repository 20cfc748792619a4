"""Measures what embedding costs in training steps: a pass in fp32 and in bf16, and a whole job.

    python -m benchmarks.embedding_speed                          all networks, then the job
    python -m benchmarks.embedding_speed --networks resnet18      that one alone
    python -m benchmarks.embedding_speed --skip-bf16 --skip-job   passes in fp32 alone

A training step is forward, cross-entropy and backward with weight gradients through timm's own
network, in fp32, train mode, channels-last, without an optimiser. A `hutchinson` pass is a forward
pass of the probe and one backward pass to every filter's squares, image by image. Both see the same
batch at the probe's input size with the same threads; what is compared takes turns, and a ratio is
the median over rounds of the ratio within a round, which other work on the machine changes least.

Speed does not depend on weights: where the card's would be a download, they are random, seeded. The
bf16 distance error is the cosine distance between the fp32 and the bf16 vector of one small set
with one head and the same draws; on random weights it is that of a random network, whose batch
norms have the statistics of those images.

The job is one set of JPEG photographs (500 x 375 windows of scikit-learn's two) in default
settings, from the archive to the embedding, against decoding it and one training step over the same
images; the head and its cross-validation are left out of it and stand beside it. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.catalogue import ProbeCard, get_card
from app.embedding.dataset import LabelledImages
from app.embedding.probe import BATCH_SIZE, choose_device, load_probe
from app.settings import shared_directory
from benchmarks.speed.job import JobSeconds, time_job
from benchmarks.speed.machine import Machine, describe_machine
from benchmarks.speed.networks import timed_card
from benchmarks.speed.passes import (
    Timed,
    TrainingStep,
    distance_error,
    fisher_pass,
    input_gradient,
    interleaved,
    ratio,
)
from benchmarks.speed.pictures import photographs, read

NETWORKS = ("resnet18", "resnet34", "tf_efficientnet_lite0")
JOB_NETWORK = "tf_efficientnet_lite0"
N_CLASSES = 10
TRAIN, FP32, BF16, INPUT = "training step", "hutchinson fp32", "hutchinson bf16", "input gradient"


@dataclass(frozen=True, slots=True)
class PassSeconds:
    """Seconds of each thing run, round by round; no distance error where bf16 is left out."""

    seconds: dict[str, list[float]]
    bf16_distance_error: float | None

    def over_training(self, name: str) -> float | None:
        return ratio(self.seconds[name], self.seconds[TRAIN]) if name in self.seconds else None

    def to_json(self) -> dict[str, Any]:
        return {
            "hutchinson_fp32_over_train_step": self.over_training(FP32),
            "hutchinson_bf16_over_train_step": self.over_training(BF16),
            "bf16_distance_error": self.bf16_distance_error,
            "input_gradient_over_train_step": self.over_training(INPUT),
            "train_step_seconds": statistics.median(self.seconds[TRAIN]),
        }


def time_passes(
    card: ProbeCard, images: LabelledImages, machine: Machine, options: argparse.Namespace
) -> PassSeconds:
    """`images` serve the distance error; the timed batch is noise. Emulated bf16 runs one round."""
    device = choose_device(options.device)
    size = card.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (options.batch, size, size, 3), np.uint8)
    probe = load_probe(card, str(device))
    step = TrainingStep(card, N_CLASSES, device)
    batch, labels = probe.normalise(pixels), np.arange(len(pixels)) % N_CLASSES
    timed = {
        TRAIN: Timed(lambda: step(batch, labels), options.repeats),
        FP32: Timed(fisher_pass(probe, pixels), options.repeats),
        INPUT: Timed(input_gradient(probe, pixels), options.repeats),
    }
    if options.skip_bf16:
        return PassSeconds(interleaved(timed, device), None)
    half = load_probe(card, str(device), torch.bfloat16)
    timed[BF16] = Timed(
        fisher_pass(half, pixels), 1 if machine.bf16 == "emulated" else options.repeats
    )
    seconds = interleaved(timed, device)
    return PassSeconds(seconds, distance_error(images, probe, half, options.batch))


def pass_lines(card: ProbeCard, found: PassSeconds, machine: Machine) -> list[str]:
    weights = "random weights" if card.weights.source.startswith("file:") else "its own weights"
    lines = [f"{card.name}, {card.input_size} px, {weights}"]
    for name, seconds in found.seconds.items():
        line = f"  {name:18}{1e3 * statistics.median(seconds):10.1f} ms"
        if name != TRAIN:
            ratios = sorted(a / b for a, b in zip(seconds, found.seconds[TRAIN], strict=False))
            line += f"  {found.over_training(name):7.2f} x  ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        if name == BF16 and machine.bf16 == "emulated":
            line += "  emulated: says nothing of a processor that has it"
        lines.append(line)
    if found.bf16_distance_error is not None:
        lines.append(f"  bf16 distance error {found.bf16_distance_error:.1e}")
    return lines


def job_lines(network: str, found: JobSeconds) -> list[str]:
    training = statistics.median(found.training)
    phases = {
        phase: statistics.median(seconds[phase] for seconds in found.phases)
        for phase in found.phases[0]
    }
    return [
        f"job: {found.n_images} images of {found.archive_bytes / found.n_images / 1e3:.0f} kB, "
        f"{network}, batch {found.batch_size}, {found.draws} draws an image",
        "  " + ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in phases.items()),
        f"  without head {statistics.median(found.without_head):.2f} s; decode and one training "
        f"step {statistics.median(found.decode) + training:.2f} s: "
        f"{found.over_decode_and_training:.2f} x",
    ]


def job_json(network: str, found: JobSeconds) -> dict[str, Any]:
    return {
        "network": network,
        "images": found.n_images,
        "draws": found.draws,
        "over_decode_and_train_step": found.over_decode_and_training,
        "without_head_seconds": statistics.median(found.without_head),
        "head_seconds": statistics.median(phases["head"] for phases in found.phases),
        "decode_seconds": statistics.median(found.decode),
        "train_step_seconds": statistics.median(found.training),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    machine = describe_machine(device)
    print(
        f"{machine.processor}, {machine.threads} threads, load {machine.load_average}, on "
        f"{machine.device}; batch {options.batch}; bf16 {machine.bf16}"
    )
    result: dict[str, Any] = {}
    archive = photographs(options.error_images)
    with tempfile.TemporaryDirectory() as directory:
        for name in options.networks:
            card = get_card(options.models, ProbeCard, name)
            images = read(archive, card.input_size)
            card = timed_card(card, images.pixels, Path(directory))
            found = time_passes(card, images, machine, options)
            print("\n".join(pass_lines(card, found, machine)), flush=True)
            result[name] = found.to_json()
        if not options.skip_job:
            card = get_card(options.models, ProbeCard, options.job_network)
            images = read(archive, card.input_size)
            card = timed_card(card, images.pixels, Path(directory))
            job = time_job(
                load_probe(card, str(device)),
                n_images=options.job_images,
                rounds=options.job_repeats,
            )
            print("\n".join(job_lines(card.name, job)), flush=True)
            result["job"] = job_json(card.name, job)
    print(json.dumps({**result, "machine": machine.to_json()}))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=shared_directory("models"))
    parser.add_argument("--networks", nargs="*", default=NETWORKS, metavar="PROBE")
    parser.add_argument("--batch", type=_batch, default=BATCH_SIZE, help="images in a pass")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of passes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--skip-bf16", action="store_true")
    parser.add_argument("--error-images", type=int, default=48, help="for the bf16 distance error")
    parser.add_argument("--skip-job", action="store_true")
    parser.add_argument("--job-network", default=JOB_NETWORK, metavar="PROBE")
    parser.add_argument("--job-images", type=int, default=500)
    parser.add_argument("--job-repeats", type=int, default=3, help="rounds of the job")
    return parser.parse_args(arguments)


def _batch(text: str) -> int:
    if int(text) < BATCH_SIZE:
        raise argparse.ArgumentTypeError(f"a pass never runs fewer than {BATCH_SIZE} images")
    return int(text)


if __name__ == "__main__":
    main()
