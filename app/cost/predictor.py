"""First estimate of a fine-tuning run: counts over peak numbers, a roofline with stated doubt.

For every phase of the run (features.py),

    seconds = max(roofline / efficiency, kernels * launch_seconds, decoding / decode_rate)
    roofline = max(flops / peak_flops, bytes / bandwidth)

after S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), 2009; the efficiency is what a device's card says training
reaches of its roofline. On a CPU the same cores decode and compute, so there the two add up.

None of this is fitted to outcomes of fine-tuning runs: intervals are ranges of assumptions, not
probabilities, and every estimate says so (`calibrated`, `Interval.kind`). Where outcomes say by
what factor such counts are off (correction.py), they are multiplied by it; where they say how far
a new task's may lie from that, the interval is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from types import MappingProxyType
from typing import Literal

from app.catalogue import CandidateCard, DeviceCard, RecipeCard
from app.cost.correction import Factor
from app.cost.features import Phase, TaskFacts, Workload, inference, workload
from app.cost.timing import SUSTAINED, Bound, Timing
from app.errors import InvalidRequest

__all__ = [
    "Estimate",
    "Interval",
    "TaskFacts",
    "activation_ratio",
    "counted_seconds",
    "estimate",
    "roofline_seconds",
]

MIB = 2**20
SECONDS_PER_HOUR = 3600.0

HALF_PRECISION_BYTES = 0.5
"""Share of fp32's activation bytes that autocast to 16 bits moves and keeps."""

UNCARDED_SPREAD = 2.0
"""Start-up, decoding and launching depend on disks, image sizes and host processors that no card
knows: each may take this many times longer, or shorter."""

POWER_SHARES = (0.5, 0.8, 1.0)
"""Share of the rated watts drawn on average: a device that waits for data or memory draws less."""

ACTIVATION_SHARES = (1.0, 1.15, 1.6)
"""Memory taken over what is counted: fragmentation, workspaces, what autocast leaves in fp32."""

IntervalKind = Literal["exact", "uncalibrated_range", "conformal_90"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with its doubt, low <= typical <= high.

    `exact`               counted; all three are the same
    `uncalibrated_range`  from assumptions at their ends and their middle; no probability is meant
    `conformal_90`        median, and bounds that cover 90% of new tasks' outcomes (conformal.py)
    """

    low: float
    typical: float
    high: float
    kind: IntervalKind = "uncalibrated_range"

    def scaled(self, factor: float) -> Interval:
        """In another unit; `factor` >= 0."""
        return replace(
            self, low=self.low * factor, typical=self.typical * factor, high=self.high * factor
        )

    def corrected(self, factor: Factor | None) -> Interval:
        """By what outcomes say of such counts."""
        if factor is None:
            return self
        if factor.low is None or factor.high is None:
            return self.scaled(factor.typical)
        low, typical, high = (self.typical * x for x in (factor.low, factor.typical, factor.high))
        return Interval(low, typical, high, "conformal_90")


CountedName = Literal["seconds", "energy_wh", "memory_mib"]
"""What outcomes can correct."""

NOT_CORRECTED: Mapping[CountedName, Factor | None] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one (task, candidate, recipe, device) would cost; cards are named, not carried.

    `top1_percent`        published ImageNet-1k accuracy: a prior on strength, nothing of this task
    `difficulty`          asymmetric distance from the candidate's source task; lower is easier
    `ridge_accuracy`      of a simple classifier on the candidate's features (scores.py), a share
    `fits`                typical memory is within the device's
    `fitting_batch_size`  largest batch that is, 0 where none is
    `inference_seconds`   of the network on one image, alone in its batch
    `counted`             typical seconds, energy and memory before any correction
    `timed`               whether seconds rest on steps timed on the device
    `basis`               a sentence for each number, on what it rests
    `calibrated`          whether the interval of seconds is
    """

    candidate: str
    recipe: str
    device: str
    accuracy: Interval | None
    top1_percent: float | None
    difficulty: float | None
    ridge_accuracy: float | None
    steps: Interval
    seconds: Interval
    money_usd: Interval
    energy_wh: Interval
    memory_mib: Interval
    fits: bool
    fitting_batch_size: int
    inference_seconds: Interval
    counted: dict[CountedName, float]
    timed: bool
    basis: list[str]

    @property
    def calibrated(self) -> bool:
        return self.seconds.kind == "conformal_90"


def estimate(
    task: TaskFacts,
    candidate: CandidateCard,
    recipe: RecipeCard,
    device: DeviceCard,
    *,
    difficulty: float | None,
    accuracy: Interval | None = None,
    ridge_accuracy: float | None = None,
    factors: Mapping[CountedName, Factor | None] = NOT_CORRECTED,
    timing: Timing | None = None,
) -> Estimate:
    """Steps, seconds, money, energy and memory of one run; `difficulty`, `accuracy` (a share),
    `ridge_accuracy`, `factors` and `timing` are the caller's, accuracy and factors from outcomes
    (estimator.py).
    A factor on seconds is on what is counted, so it goes before a timing.

    Raises InvalidRequest where `difficulty` is not finite.
    """
    if difficulty is not None and not isfinite(difficulty):
        raise InvalidRequest(
            "difficulty-not-finite",
            f"The difficulty of {candidate.name} is {difficulty}.",
            "Leave it out where the source task has no embedding.",
        )
    work = workload(task, candidate, recipe)
    run_seconds = _seconds(work, device)
    counted_bytes, fitting_batch_size = _memory(work, recipe, device)
    counted: dict[CountedName, Interval] = {
        "seconds": run_seconds,
        "energy_wh": _energy_wh(run_seconds, device),
        "memory_mib": counted_bytes.scaled(1 / MIB),
    }
    told = {name: number.corrected(factors.get(name)) for name, number in counted.items()}
    timed = timing if factors.get("seconds") is None else None
    if timed is not None:
        told["seconds"] = _seconds(work, device, timed)
    if factors.get("energy_wh") is None:  # nobody read the power; the time is known better
        told["energy_wh"] = _energy_wh(told["seconds"], device)
    return Estimate(
        candidate=candidate.name,
        recipe=recipe.name,
        device=device.name,
        accuracy=accuracy,
        top1_percent=candidate.top1_percent,
        difficulty=difficulty,
        ridge_accuracy=ridge_accuracy,
        steps=Interval(work.split.steps, work.split.steps, work.split.steps, "exact"),
        seconds=told["seconds"],
        money_usd=told["seconds"].scaled(device.price_usd_per_hour / SECONDS_PER_HOUR),
        energy_wh=told["energy_wh"],
        memory_mib=told["memory_mib"],
        fits=told["memory_mib"].typical * MIB <= device.memory_bytes,
        fitting_batch_size=fitting_batch_size,
        inference_seconds=counted_seconds(inference(candidate), device),
        counted={name: number.typical for name, number in counted.items()},
        timed=timed is not None,
        basis=[
            _basis_of_accuracy(accuracy, candidate),
            *([] if ridge_accuracy is None else [_basis_of_ridge(ridge_accuracy)]),
            *_basis(task, work, candidate, recipe, device, difficulty, timed),
            *(_basis_of_factor(name, factor) for name, factor in factors.items() if factor),
        ],
    )


def _seconds(work: Workload, device: DeviceCard, timing: Timing | None = None) -> Interval:
    def run(bound: Bound, efficiency: float, spread: float) -> float:
        phases = sum(
            _phase_seconds(
                phase,
                device,
                efficiency,
                spread,
                timing.seconds(phase, bound) if timing else None,
            )
            for phase in work.phases
        )
        return device.startup_seconds * spread + phases

    return Interval(
        low=run("low", device.efficiency_high, 1 / UNCARDED_SPREAD),
        typical=run("typical", device.efficiency_typical, 1.0),
        high=run("high", device.efficiency_low, UNCARDED_SPREAD),
    )


def counted_seconds(phase: Phase, device: DeviceCard) -> Interval:
    """Of one phase, by its counts alone."""
    return Interval(
        low=_phase_seconds(phase, device, device.efficiency_high, 1 / UNCARDED_SPREAD),
        typical=_phase_seconds(phase, device, device.efficiency_typical, 1.0),
        high=_phase_seconds(phase, device, device.efficiency_low, UNCARDED_SPREAD),
    )


def _phase_seconds(
    phase: Phase,
    device: DeviceCard,
    efficiency: float,
    spread: float,
    compute: float | None = None,
) -> float:
    """`compute`: where it was timed."""
    decode = spread * phase.decoding / device.decode_images_per_second
    if compute is None:
        compute = max(
            roofline_seconds(phase, device) / efficiency,
            spread * phase.kernels * device.launch_seconds,
        )
    return decode + compute if device.kind == "cpu" else max(decode, compute)


def roofline_seconds(phase: Phase, device: DeviceCard) -> float:
    """The least time that peak FLOP/s and bandwidth allow."""
    moved = phase.activation_bytes * activation_ratio(device) + phase.weight_bytes
    return max(phase.flops / device.peak_flops, moved / device.bandwidth_bytes_per_second)


def activation_ratio(device: DeviceCard) -> float:
    """Bytes of an activation on this device over its bytes as fp32."""
    return HALF_PRECISION_BYTES if device.precision in {"bf16", "fp16"} else 1.0


def _energy_wh(seconds: Interval, device: DeviceCard) -> Interval:
    low, typical, high = (device.power_watts * share / SECONDS_PER_HOUR for share in POWER_SHARES)
    return Interval(seconds.low * low, seconds.typical * typical, seconds.high * high)


def _memory(work: Workload, recipe: RecipeCard, device: DeviceCard) -> tuple[Interval, int]:
    """Bytes at the fullest moment, and the largest batch whose typical bytes the device holds."""
    fixed = device.context_bytes + work.resident_bytes
    low, typical, high = (
        work.bytes_per_image * activation_ratio(device) * share for share in ACTIVATION_SHARES
    )
    batch = work.split.batch_size
    room = max(device.memory_bytes - fixed, 0)
    fitting = min(int(room / typical), recipe.batch_size)
    return Interval(fixed + batch * low, fixed + batch * typical, fixed + batch * high), fitting


def _basis_of_accuracy(accuracy: Interval | None, candidate: CandidateCard) -> str:
    if accuracy is None:
        return "accuracy: not predicted; too few outcomes are known, or nothing of this candidate"
    if accuracy.kind == "conformal_90":
        return (
            "accuracy: from outcomes on other tasks and this one; the interval covers 90% of tasks"
        )
    descent = (
        f"; nothing is published of this one, which was fine-tuned from {candidate.parent}: until "
        "it has outcomes of its own, it stands where that one's published accuracy would put it"
    )
    return (
        "accuracy: from outcomes on other tasks (while yours are few, shipped ones on 64-pixel "
        "images) and this one; of a candidate without any, from its published accuracy beside "
        "theirs; the interval is uncalibrated until it has outcomes on two tasks, and there are "
        "some on nine"
    ) + (descent if candidate.parent else "")


def _basis_of_ridge(share: float) -> str:
    return (
        f"ridge_accuracy: a ridge classifier on its features gets {share:.0%} of the task's images "
        "right, each left out in turn; with LogME it enters the accuracy"
    )


def _basis_of_factor(name: CountedName, factor: Factor) -> str:
    times = f"{name}: what is counted times {factor.typical:.2g}, from outcomes on this device"
    if factor.low is None or factor.high is None:
        return f"{times}; uncalibrated until there are outcomes of the candidate and of more tasks"
    return f"{times}; the interval covers 90% of tasks"


def _basis_of_seconds(device: DeviceCard, timed: Timing | None) -> str:
    """The network's share of a run."""
    if timed is None:
        return (
            f"counted FLOPs and bytes at {device.efficiency_low:.0%} to "
            f"{device.efficiency_high:.0%} of {device.name}'s roofline"
        )
    return (
        f"the network's share as timed on this device, {timed.step_seconds.typical:.3g} s a "
        f"training step and {timed.forward_seconds.typical:.3g} s a forward pass of "
        f"{timed.batch_size} images, up to {SUSTAINED:g} times the slow ones"
    )


def _basis(
    task: TaskFacts,
    work: Workload,
    candidate: CandidateCard,
    recipe: RecipeCard,
    device: DeviceCard,
    difficulty: float | None,
    timed: Timing | None,
) -> list[str]:
    parts = work.split
    spread = f"within a factor of {UNCARDED_SPREAD:g}"
    return [
        f"top1_percent: {candidate.top1_source or 'no published figure is known'}",
        f"difficulty: asymmetric distance from {candidate.source_task}"
        if difficulty is not None
        else f"difficulty: unknown; no embedding stands for {candidate.pretraining}",
        f"steps: counted; {recipe.epochs} epochs of {parts.train_images} images "
        f"in batches of {parts.batch_size}, {parts.held_out_images} held out",
        f"seconds: {_basis_of_seconds(device, timed)}; {spread}: start-up of "
        f"{device.startup_seconds:g} s, "
        f"{device.decode_images_per_second / task.decode_effort:.3g} images decoded a second, "
        f"{device.launch_seconds * 1e6:g} us a kernel",
        f"money_usd: seconds at {device.price_usd_per_hour:g} USD per hour "
        f"({device.price_date}; {device.price_note})",
        f"energy_wh: seconds at {POWER_SHARES[0]:.0%} to {POWER_SHARES[-1]:.0%} of "
        f"{device.power_watts:g} W, the {device.kind} alone",
        f"inference_seconds: counted likewise, one image at a time on {device.name}",
        f"memory_mib: fp32 weights, gradients and {recipe.optimiser} states, activations in "
        f"{device.precision} counted for a batch of {parts.batch_size} and taken at "
        f"{ACTIVATION_SHARES[0]:g} to {ACTIVATION_SHARES[-1]:g} times",
    ]
