"""Times training steps of candidates on this machine, beside what its card's counts say of them.

    python -m benchmarks.steps                                        the few of CANDIDATES
    python -m benchmarks.steps resnet50.a1_in1k --batches 4,16,64     that one, batch by batch
    python -m benchmarks.steps --every --device h100 --on cuda        all, on a GPU

A step is of AdamW on random weights and images in memory, every weight trained, in the precision of
the device's card. `timed over counted` is its mean time over the typical of the counts, which is
what estimates rest on until somebody times a step or reports an outcome; `inside`, whether it lies
in the counts' range. Microseconds an operation tell what launching costs where nothing else does:
small batches on a fast GPU. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from app.catalogue import CandidateCard, DeviceCard, get_card, load_cards
from app.cost.predictor import Interval, counted_seconds
from app.cost.timing import Timing
from app.embedding.probe import choose_device
from app.errors import Task2VecError
from app.settings import shared_directory
from app.training.steps import time_steps
from benchmarks.roofline import training_step

CANDIDATES = (
    "mobilenetv3_small_100.lamb_in1k",
    "tf_efficientnet_lite0.in1k",
    "resnet18.a1_in1k",
    "deit_small_patch16_224.fb_in1k",
)
BATCH_SIZES = (4, 16, 64)


@dataclass(frozen=True, slots=True)
class Step:
    """`counted`: seconds of the same step from counts over the device's card; of `operations` that
    a training step and a forward pass launch."""

    candidate: str
    timing: Timing
    counted: Interval
    operations: tuple[int, int]

    @property
    def ratio(self) -> float:
        return self.timing.step_seconds.typical / self.counted.typical

    @property
    def inside(self) -> bool:
        return self.counted.low <= self.timing.step_seconds.typical <= self.counted.high

    def to_json(self) -> dict[str, Any]:
        batch = self.timing.batch_size
        step, forward = self.timing.step_seconds.typical, self.timing.forward_seconds.typical
        return {
            "candidate": self.candidate,
            "batch_size": batch,
            "step_ms_per_image": round(1e3 * step / batch, 3),
            "forward_ms_per_image": round(1e3 * forward / batch, 3),
            "step_us_per_operation": round(1e6 * step / self.operations[0], 1),
            "forward_us_per_operation": round(1e6 * forward / self.operations[1], 1),
            "timed_over_counted": round(self.ratio, 3),
            "inside": self.inside,
        }

    def line(self) -> str:
        of = self.to_json()
        return (
            f"{self.candidate:48} {of['batch_size']:4} a batch "
            f"{of['step_ms_per_image']:9.3f} ms an image, forward {of['forward_ms_per_image']:8.3f}"
            f"   timed over counted {self.ratio:5.2f}{'' if self.inside else '  outside'}"
        )


def summary(steps: Sequence[Step]) -> dict[str, Any]:
    """How far the counts are off on this device: the shared factor, and what is left beside it."""
    logs = np.log([step.ratio for step in steps])
    rows = [step.to_json() for step in steps]
    return {
        "steps": len(steps),
        **{
            f"{name}_median": round(float(np.median([row[name] for row in rows])), 1)
            for name in ("step_us_per_operation", "forward_us_per_operation")
        },
        "timed_over_counted_median": round(math.exp(float(np.median(logs))), 3),
        "timed_over_counted_p10": round(math.exp(float(np.quantile(logs, 0.1))), 3),
        "timed_over_counted_p90": round(math.exp(float(np.quantile(logs, 0.9))), 3),
        "spread_around_median": round(
            math.exp(float(np.median(np.abs(logs - np.median(logs))))), 3
        ),
        "inside": round(float(np.mean([step.inside for step in steps])), 3),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    models = shared_directory("models")
    card = get_card(models, DeviceCard, options.device)
    device = choose_device(options.on)
    every = load_cards(models, CandidateCard)
    names = every if options.every else options.candidates or CANDIDATES
    steps: list[Step] = []
    for name in names:
        candidate = get_card(models, CandidateCard, name)
        for batch_size in options.batches:
            try:
                timing = time_steps(
                    candidate,
                    device,
                    card.precision,
                    batch_size=batch_size,
                    steps=options.steps,
                    most_seconds=options.seconds,
                )
            except Task2VecError as error:
                print(f"{name:48} {batch_size:4} a batch: {error}", flush=True)
                continue
            phase = training_step(candidate, batch_size, "adamw")
            operations = (phase.kernels, candidate.forward_operations)
            steps.append(Step(name, timing, counted_seconds(phase, card), operations))
            print(steps[-1].line(), flush=True)
    here = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(
        json.dumps(
            {
                "device": card.name,
                "on": here,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "precision": card.precision,
                **summary(steps),
                "each": [step.to_json() for step in steps],
            }
        )
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("candidates", nargs="*", metavar="CANDIDATE")
    parser.add_argument("--every", action="store_true", help="candidate that has a card")
    parser.add_argument("--device", default="cpu-2core", help="the card of this machine")
    parser.add_argument("--on", default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--batches", type=_numbers, default=list(BATCH_SIZES), metavar="4,16,64")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, of each kind of pass")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
