"""Measures this machine's processor for its device card.

    python -m benchmarks.devices            print peak, bandwidth, training efficiency, decode rate
    python -m benchmarks.devices --write    and write the measured fields of cpu-2core.toml

Peak, bandwidth and kernel time are the best of several rounds, since only noise makes them worse;
training steps are medians. The last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import timm
import tomlkit
import torch
from PIL import Image

from app.catalogue import CandidateCard, DeviceCard, load_card, load_cards
from app.settings import shared_directory
from benchmarks.decoding import picture
from benchmarks.roofline import least_step_seconds

DEVICE = "cpu-2core"
NETWORKS = (
    "resnet18.a1_in1k",
    "resnet50.a1_in1k",
    "mobilenetv3_large_100.ra_in1k",
    "tf_efficientnet_lite0.in1k",
    "efficientnet_b0.ra_in1k",
    "convnext_atto.d2_in1k",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "deit_small_patch16_224.fb_in1k",
)
BATCH_SIZE = 16
CLASSES = 10
IDLE_LOAD_PER_CORE = 0.3


def peak_flops(rounds: int = 10, size: int = 2048) -> float:
    """FLOP/s of an fp32 matrix product, 2 FLOPs per multiply-add."""
    left, right = torch.rand(size, size), torch.rand(size, size)
    return 2 * size**3 / _best_seconds(lambda: left @ right, rounds)


def bandwidth_bytes_per_second(rounds: int = 10, size_bytes: int = 2**28) -> float:
    """Read and written by a copy far larger than the caches."""
    source = torch.rand(size_bytes // 4)
    target = torch.empty_like(source)
    return 2 * size_bytes / _best_seconds(lambda: target.copy_(source), rounds)


def launch_seconds(rounds: int = 10, kernels: int = 1000) -> float:
    """Least time of one operation with its gradient's bookkeeping, on a single number."""
    weight, number = torch.ones(1, requires_grad=True), torch.ones(1)

    def multiply() -> None:
        for _ in range(kernels):
            weight * number

    return _best_seconds(multiply, rounds) / kernels


def decode_images_per_second(images: int = 300) -> float:
    """500 x 375 JPEG files of a smooth, textured picture, decoded and resized to 224 px."""
    data = picture(500, 375, "JPEG")

    def decode(_: int) -> None:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        started = time.perf_counter()
        list(pool.map(decode, range(images)))
        return images / (time.perf_counter() - started)


def startup_seconds() -> float:
    """A fresh process that imports torch and timm, builds a network and takes one step."""
    script = (
        "import timm, torch; network = timm.create_model('resnet18');"
        "network(torch.rand(2, 3, 224, 224)).sum().backward()"
    )
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], check=True)
    return time.perf_counter() - started


def step_seconds(candidate: CandidateCard, rounds: int = 3) -> float:
    """Median of one AdamW training step of the whole network at BATCH_SIZE."""
    network = timm.create_model(candidate.network, pretrained=False, num_classes=CLASSES).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    images = torch.rand(BATCH_SIZE, 3, candidate.input_size, candidate.input_size)
    labels = torch.arange(BATCH_SIZE) % CLASSES

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    step()
    return statistics.median(_seconds(step) for _ in range(rounds))


def roofline_share(candidate: CandidateCard, device: DeviceCard, seconds: float) -> float:
    """The least time of that training step, over the time it took."""
    return least_step_seconds(candidate, device, BATCH_SIZE) / seconds


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _best_seconds(run: Callable[[], object], rounds: int) -> float:
    run()
    return min(_seconds(run) for _ in range(rounds))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the measured fields")
    parser.add_argument("--networks", nargs="*", default=NETWORKS, help="candidates to train")
    arguments = parser.parse_args()
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    if arguments.write and load > IDLE_LOAD_PER_CORE:
        parser.error(f"others keep this machine busy (load {load:.1f} a core): nothing is written")
    models = shared_directory("models")
    path = models / "devices" / f"{DEVICE}.toml"

    measured = {
        "peak_flops": peak_flops(),
        "bandwidth_bytes_per_second": bandwidth_bytes_per_second(),
        "launch_seconds": launch_seconds(),
        "startup_seconds": startup_seconds(),
        "decode_images_per_second": decode_images_per_second(),
    }
    device = load_card(path, DeviceCard).model_copy(update=measured)
    candidates = load_cards(models, CandidateCard)
    shares = {}
    for name in arguments.networks:
        seconds = step_seconds(candidates[name])
        shares[name] = roofline_share(candidates[name], device, seconds)
        milliseconds = seconds / BATCH_SIZE * 1e3
        print(f"{name:45} {milliseconds:8.1f} ms an image, {shares[name]:.2f} of roofline")
    measured["efficiency_low"] = min(shares.values())
    measured["efficiency_typical"] = statistics.median(shares.values())
    measured["efficiency_high"] = min(max(shares.values()), 1.0)
    measured = {field: _rounded(value) for field, value in measured.items()}
    if arguments.write:
        _write(path, measured)
    print(json.dumps({"device": DEVICE, "threads": torch.get_num_threads(), **measured}))


def _write(path: Path, measured: dict[str, float]) -> None:
    card = tomlkit.parse(path.read_text(encoding="utf-8"))
    for field, value in measured.items():
        card[field] = value
    path.write_text(tomlkit.dumps(card), encoding="utf-8")
    load_card(path, DeviceCard)


if __name__ == "__main__":
    main()
