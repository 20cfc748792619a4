"""Small probes of every layer type: timm's test networks with seeded weights on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from app.catalogue import ProbeCard, Weights
from app.embedding.dataset import LabelledImages


def probe_card(
    directory: Path,
    network: str = "test_resnet",
    input_size: int = 32,
    silenced: tuple[str, int] | None = None,
) -> ProbeCard:
    """A card whose weights, seeded and with lively normalisation, lie in `directory`.

    `silenced`  a normalisation and the channel that it multiplies by zero
    """
    return ProbeCard(
        name=network,
        version=1,
        network=network,
        weights=seeded_weights(directory, network, input_size, silenced),
        licence="none",
        input_size=input_size,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        layers=("*",),
        epsilon=1e-12,
    )


def seeded_weights(
    directory: Path, network: str, input_size: int, silenced: tuple[str, int] | None = None
) -> Weights:
    torch.manual_seed(0)
    model = _model(network, input_size)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            tensor.normal_(0.0, 0.3)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.add_(0.1 * torch.randn_like(tensor))
    if silenced:
        model.state_dict()[f"{silenced[0]}.weight"][silenced[1]] = 0.0
    path = directory / f"{network}.pt"
    torch.save(model.state_dict(), path)
    return Weights(source=f"file:{path}", sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def original_network(card: ProbeCard, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The network of a `probe_card` as timm makes it: nothing folded, no classifier, eval mode."""
    model = _model(card.network, card.input_size)
    path = Path(card.weights.source.removeprefix("file:"))
    model.load_state_dict(torch.load(path, weights_only=True))
    model.reset_classifier(0)
    network: nn.Module = model.eval().to(dtype)
    return network


def _model(network: str, input_size: int) -> Any:
    fixed = timm.get_pretrained_cfg(network, allow_unregistered=True).fixed_input_size
    return timm.create_model(network, **({"img_size": input_size} if fixed else {}))


def coloured_noise(
    n: int, n_classes: int, size: int = 32, *, multi_label: bool = False, seed: int = 0
) -> LabelledImages:
    """Images whose mean colour tells the class, a little; classes are unequally large."""
    generator = np.random.default_rng(seed)
    labels = np.sort(np.minimum(generator.geometric(1.5 / n_classes, n) - 1, n_classes - 1))
    labels[:n_classes] = np.arange(n_classes)
    labels = np.sort(labels)
    colours = np.random.default_rng(99).uniform(60, 200, (n_classes, 3))
    noise = generator.normal(0, 60, (n, size, size, 3))
    pixels = np.clip(colours[labels][:, None, None] + noise, 0, 255).astype(np.uint8)
    if multi_label:
        labels = np.eye(n_classes, dtype=bool)[labels] | (generator.random((n, n_classes)) < 0.3)
    return LabelledImages(
        pixels=pixels,
        labels=labels,
        classes=tuple(f"class-{c}" for c in range(n_classes)),
        digests=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in pixels),
        label_kind="multi_label" if multi_label else "single_label",
    )
