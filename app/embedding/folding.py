"""Batch normalisation folded into the convolutions before it, without changing what is measured.

In eval mode y = gamma (conv(x; w) - mean) / sqrt(var + eps) + beta is one convolution with weights
s w, s = gamma / sqrt(var + eps) per output channel. A pass without normalisation layers is faster
forward and backward. By the chain rule a gradient for w is s times the one for s w, so the Fisher
of the original weights is s^2 times that of the folded ones.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Fold:
    """A convolution, by name, and the normalisation that reads its output and nothing else does."""

    convolution: str
    normalisation: str


def fold_batch_norms(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Folds in place, and returns the scales s (C_out,) float64 by name of the convolution.

    `network`  in eval mode
    `images`   (B, 3, S, S): what it is tried on, to see which layer feeds which
    """
    modules = dict(network.named_modules())
    scales = {}
    for fold in _folds(network, images):
        convolution, norm = modules[fold.convolution], modules[fold.normalisation]
        if not (isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            raise TypeError(f"{fold} is not a convolution and a normalisation")
        scales[fold.convolution] = _fold(convolution, norm)
        rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else None
        network.set_submodule(fold.normalisation, rest or nn.Identity())
    return scales


def _folds(network: nn.Module, images: Tensor) -> list[Fold]:
    """Read off the graph of one pass: the module names alone do not tell what feeds what."""
    made: dict[Any, str] = {}  # graph node of a convolution's output -> its name
    read: dict[str, Any] = {}  # normalisation -> node of its input
    calls: Counter[str] = Counter()

    def note(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] += 1
            if isinstance(module, nn.Conv2d):
                made[output.grad_fn] = name
            else:
                read[name] = arguments[0].grad_fn

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if type(module) in {nn.Conv2d, Conv2dSame} or _foldable(module)
    ]
    try:
        with torch.enable_grad():
            features = network(images.detach().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    readers = _readers(features.grad_fn)
    return [
        Fold(made[node], norm)
        for norm, node in read.items()
        if node in made and readers[node] == calls[norm] == calls[made[node]] == 1
    ]


def _foldable(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.BatchNorm2d)
        and type(module) in {nn.BatchNorm2d, BatchNormAct2d}
        and module.running_mean is not None
    )


def _readers(last: Any) -> Counter[Any]:
    """How many nodes of the graph that ends in `last` read each node."""
    counts: Counter[Any] = Counter()
    waiting, seen = [last], {last}
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is not None:
                counts[node] += 1
                if node not in seen:
                    seen.add(node)
                    waiting.append(node)
    return counts


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a normalisation without running statistics cannot be folded")
    scale = (variance.double() + norm.eps).rsqrt()
    shift = -mean.double() * scale
    if norm.affine:
        scale = scale * norm.weight.double()
        shift = shift * norm.weight.double() + norm.bias.double()
    weight = convolution.weight
    if convolution.bias is not None:
        shift = shift + scale * convolution.bias.double()
    folded = weight.double() * scale.view(-1, 1, 1, 1)
    weight.data.copy_(folded)
    convolution.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)
    return scale
