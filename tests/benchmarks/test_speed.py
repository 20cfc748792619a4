from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from app.catalogue import ProbeCard, get_card
from app.embedding.probe import load_probe
from benchmarks import embedding_speed
from benchmarks.speed.networks import timed_card
from benchmarks.speed.passes import Timed, distance_error, interleaved, ratio
from benchmarks.speed.pictures import SIZE, photographs, read
from tests.probes import coloured_noise

CPU = torch.device("cpu")
CARD = """
name = "tiny"
version = 1
network = "test_resnet"
licence = "none"
input_size = 32
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
layers = ["*"]
epsilon = 1e-12

[weights]
source = "timm:r160_in1k"
"""
FEW = ["--repeats", "2", "--error-images", "16", "--job-images", "24", "--job-repeats", "2"]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "tiny.toml").write_text(CARD)
    return tmp_path


def last_line(models: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    embedding_speed.main(
        ["--models", str(models), "--networks", "tiny", "--job-network", "tiny", *FEW, *more]
    )
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_last_line_has_the_figures(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = last_line(models, capsys)
    assert found.keys() == {"tiny", "job", "machine"}
    passes, job = found["tiny"], found["job"]
    assert all(math.isfinite(value) and value > 0 for value in passes.values())
    assert {
        "hutchinson_fp32_over_train_step",
        "hutchinson_bf16_over_train_step",
        "bf16_distance_error",
    } <= passes.keys()
    assert passes["bf16_distance_error"] < 0.01
    assert (job.pop("network"), job["images"]) == ("tiny", 24)
    assert all(math.isfinite(value) and value > 0 for value in job.values())
    assert found["machine"]["bf16"] in {"native", "emulated"}
    assert found["machine"]["threads"] == torch.get_num_threads()


def test_what_is_left_out_is_null_or_missing(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = last_line(models, capsys, "--skip-bf16", "--skip-job")
    assert "job" not in found
    assert found["tiny"]["hutchinson_fp32_over_train_step"] > 0
    assert found["tiny"]["hutchinson_bf16_over_train_step"] is None
    assert found["tiny"]["bf16_distance_error"] is None


def test_rounds_take_turns_in_both_directions() -> None:
    order: list[str] = []
    timed = {
        "a": Timed(lambda: order.append("a"), 3),
        "b": Timed(lambda: order.append("b"), 3),
        "c": Timed(lambda: order.append("c"), 1),
    }
    seconds = interleaved(timed, CPU)
    assert "".join(order) == "abc" + "abc" + "ba" + "ab"  # the first three warm up
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3, "c": 1}


def test_ratio_is_that_of_rounds_not_of_medians() -> None:
    assert ratio([2.0, 20.0, 30.0], [1.0, 10.0, 20.0]) == 2.0
    assert ratio([5.0], [2.0, 100.0]) == 2.5


def test_random_weights_are_seeded_and_lively(models: Path, tmp_path: Path) -> None:
    card = get_card(models, ProbeCard, "tiny")
    pixels = coloured_noise(32, 3).pixels
    first = timed_card(card, pixels, tmp_path)
    assert first.weights.source.startswith("file:")
    assert timed_card(card, pixels, tmp_path).weights.sha256 == first.weights.sha256
    assert timed_card(first, pixels, tmp_path) is first
    probe = load_probe(first)
    kept: list[torch.Tensor] = []
    for module in probe.network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    probe.features(pixels)
    assert len(kept) > 4
    for output in kept:
        assert 0.1 < output.std() < 10
        assert (output > 0).any(dim=(0, 2, 3), keepdim=False).float().mean() > 0.9


def test_distance_error_is_zero_between_equals(models: Path, tmp_path: Path) -> None:
    images = coloured_noise(32, 3)
    card = timed_card(get_card(models, ProbeCard, "tiny"), images.pixels, tmp_path)
    probe = load_probe(card)
    assert distance_error(images, probe, load_probe(card), 16) < 1e-12
    rounded = distance_error(images, probe, load_probe(card, dtype=torch.bfloat16), 16)
    assert 1e-9 < rounded < 0.01


def test_photographs_are_as_large_as_stated_and_of_every_class() -> None:
    archive = photographs(24)
    assert archive == photographs(24)
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        for name in files.namelist():
            with Image.open(io.BytesIO(files.read(name))) as image:
                assert (image.format, image.size) == ("JPEG", SIZE)
    images = read(archive, 32)
    assert len(images.digests) == 24
    assert images.classes[0] == "china lower left"
    assert np.bincount(images.labels).tolist() == [3] * 8
