"""The same embedding on every device there is, and in half precision."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.embedding.distance import one_to_one
from app.embedding.embed import embed_images
from app.embedding.probe import choose_dtype, load_probe
from app.embedding.tf32 import tf32
from app.errors import InvalidRequest
from tests.probes import coloured_noise, probe_card

GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU"),
    ],
)


@pytest.mark.parametrize("network", ["test_resnet", "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_half_precision_runs_in_the_same_space_and_says_so(
    network: str, device: str, tmp_path: Path
) -> None:
    card = probe_card(tmp_path, network)
    images = coloured_noise(40, 6)
    full = embed_images(images, load_probe(card, device), tolerance=None, draws=1)
    half = embed_images(images, load_probe(card, device, torch.bfloat16), tolerance=None, draws=1)
    assert (full.provenance.precision, half.provenance.precision) == ("float32", "bfloat16")
    assert half.space_id == full.space_id
    distance = one_to_one(full.vector, half.vector, "cosine", epsilon=full.epsilon)
    assert 0 < distance < 0.2  # of a network with random weights, looking at noise


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize(
    "network", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"]
)
def test_a_gpu_gives_the_processors_embedding(network: str, tmp_path: Path) -> None:
    card = probe_card(tmp_path, network)
    images = coloured_noise(70, 3)
    cpu, gpu = (embed_images(images, load_probe(card, name)) for name in ("cpu", "cuda"))
    assert gpu.provenance.device.startswith("cuda")
    for part in ("vector", "domain", "discriminants"):
        a, b = (getattr(found, part).astype(np.float64) for found in (cpu, gpu))
        assert np.linalg.norm(a - b) / np.linalg.norm(a) < 1e-4, part


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("network", ["test_resnet", "test_efficientnet", "test_vit"])
def test_batch_size_and_order_change_little_on_a_gpu(network: str, tmp_path: Path) -> None:
    """Its kernels are chosen by the batch's shape, and round differently."""
    probe = load_probe(probe_card(tmp_path, network), "cuda")
    images = coloured_noise(70, 3)
    order = np.random.default_rng(0).permutation(70)
    other = replace(
        images,
        pixels=images.pixels[order],
        labels=images.labels[order],
        digests=tuple(images.digests[i] for i in order),
    )
    first = embed_images(images, probe, batch_size=64)
    second = embed_images(other, probe, batch_size=16)
    for part in ("vector", "domain", "discriminants"):
        a, b = (getattr(found, part).astype(np.float64) for found in (first, second))
        assert np.linalg.norm(a - b) / np.linalg.norm(a) < 1e-4, part


def test_tf32_is_as_it_was_afterwards() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    for allowed, products in ((True, "high"), (False, "highest")):
        with tf32(allowed):
            assert torch.backends.cudnn.allow_tf32 is allowed
            assert torch.get_float32_matmul_precision() == products
        assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before


def test_who_wants_tf32_waits_for_those_who_do_not() -> None:
    entered = threading.Event()

    def train() -> None:
        with tf32(True):
            assert torch.backends.cudnn.allow_tf32
            entered.set()

    trainer = threading.Thread(target=train)
    with tf32(False), tf32(False):  # another thread's pass would share it the same way
        trainer.start()
        assert not entered.wait(0.2)
        assert not torch.backends.cudnn.allow_tf32
    trainer.join(5)
    assert entered.is_set()


def test_auto_takes_half_precision_only_where_the_device_computes_in_it() -> None:
    cpu = torch.device("cpu")
    flags = torch.cpu.get_capabilities()
    there = flags.get("amx_bf16") or flags.get("avx512_bf16")
    assert choose_dtype("auto", cpu) == (torch.bfloat16 if there else torch.float32)
    assert choose_dtype("float32", cpu) == torch.float32
    assert choose_dtype("bfloat16", cpu) == torch.bfloat16
    with pytest.raises(InvalidRequest, match="float32, bfloat16 or auto"):
        choose_dtype("float8", cpu)
