"""Starting points: ImageNet, experts on source tasks as the paper's selection has, no training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import load_file, save_file

from app.catalogue import ProbeCard, get_card
from app.embedding.probe import pretrained_network
from app.settings import shared_directory
from benchmarks.grid import tasks
from benchmarks.grid.tasks import GridTask
from benchmarks.grid.training import Schedule, fine_tune

EXPERT_SCHEDULE = Schedule(max_epochs=8)


@dataclass(frozen=True, slots=True)
class Start:
    """`source`  the task that an expert was trained on, from ImageNet's weights"""

    name: str
    network: str
    pretraining: Literal["ImageNet-1k", "expert", "none"]
    source: str | None = None


NETWORKS = tuple(f"tf_efficientnet_lite{number}" for number in (0, 1, 2))
STARTS = (
    *(Start(f"{network}.in1k", network, "ImageNet-1k") for network in NETWORKS),
    *(Start(f"lite0-{name}", NETWORKS[0], "expert", name) for name in tasks.SOURCES),
    Start("lite0-random", NETWORKS[0], "none"),
)


@dataclass(frozen=True, slots=True)
class Experts:
    """Experts' weights under `root`, each made once."""

    root: Path

    def path(self, source: str) -> Path:
        return self.root / f"{source}.safetensors"

    def train(self, task: GridTask) -> None:
        """Whole or not at all; what is there stays."""
        path = self.path(task.name)
        if path.exists():
            return
        network = _with_classifier(_imagenet(NETWORKS[0]), len(task.classes), seed=0)
        run = fine_tune(network, task, EXPERT_SCHEDULE, seed=0)
        self.root.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        network.reset_classifier(0)
        weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        save_file(weights, scratch, {"accuracy": f"{run.accuracy:.4f}"})
        scratch.replace(path)
        print(f"expert {task.name}: {run.accuracy:.3f} of {run.judged}, {run.seconds:.0f} s")

    def network(self, start: Start, *, n_classes: int, seed: int) -> Any:
        """The start's network with a new classifier of `n_classes` outputs; 0: its features."""
        torch.manual_seed(seed)
        if start.pretraining == "none":
            return _laid_out(timm.create_model(start.network, num_classes=n_classes))
        network = _imagenet(start.network)
        if start.source:
            network.load_state_dict(load_file(self.path(start.source)))
        return _with_classifier(network, n_classes, seed)


def _imagenet(network: str) -> Any:
    found = timm.create_model(network, num_classes=0)
    found.load_state_dict(_imagenet_weights(network))
    return _laid_out(found)


@cache
def _imagenet_weights(network: str) -> dict[str, Any]:
    card = get_card(shared_directory("models"), ProbeCard, network)
    return dict(pretrained_network(card).state_dict())


def _with_classifier(network: Any, n_classes: int, seed: int) -> Any:
    torch.manual_seed(seed)
    network.reset_classifier(n_classes)
    return network


def _laid_out(network: Any) -> Any:
    return network.to(memory_format=torch.channels_last)
