"""How much information the weights hold about the labels: the trace of their Fisher information.

For a network with probabilities p(y | x), the trace over all weights of the Fisher information
E_x E_y~p |grad log p(y | x)|^2 is how strongly the outputs hang on the weights, and with it, up to
a logarithm, a bound on what the weights remember of their training set (A. Achille, M. Rovere,
S. Soatto, "Critical learning periods in deep networks", ICLR 2019, section 3). Summed here over the
filters of convolutions and linear layers, image by image, by the embedding's own squares and
cotangents; biases and normalisations do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from app.embedding.dataset import LabelKind
from app.embedding.directions import logit_directions
from app.embedding.regression import sigmoid, softmax
from app.embedding.squares import Input, layer_input
from app.embedding.tf32 import tf32

_MEASURED = (nn.Conv2d, Conv2dSame, nn.Linear)


@dataclass(frozen=True, slots=True)
class Information:
    """`total` nats squared: the trace over all measured layers; `layers`: of each, in order.

    `left_out`  layers that do not run image by image, once a pass: windows of attention, say
    """

    total: float
    layers: dict[str, float]
    left_out: tuple[str, ...]


def information(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Sequence[str]]],
    label_kind: LabelKind,
    *,
    seed: int,
    draws: int = 1,
) -> Information:
    """Mean over the images of the batches, each with so many Hutchinson draws of the labels.

    `batches`  inputs (B, 3, S, S) on the network's device, and B digests of their images

    The network is left as it was, in training mode or not, with or without gradients.
    """
    recorder = _Recorder(network)
    was_training = network.training
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    images = 0
    network.eval().requires_grad_(False)
    try:
        with recorder:
            for inputs, digests in batches:
                images += len(inputs)
                recorder.look(inputs, digests, label_kind, seed, draws)
    finally:
        network.train(was_training)
        for parameter, want in zip(network.parameters(), wanted, strict=True):
            parameter.requires_grad_(want)
    layers = {
        name: value / (images * draws)
        for name, value in recorder.sums.items()
        if name not in recorder.strange
    }
    return Information(sum(layers.values()), layers, tuple(sorted(recorder.strange)))


class _Recorder:
    """Sums every layer's squared weight gradients over images and draws."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self.sums = {
            name: 0.0 for name, module in network.named_modules() if type(module) in _MEASURED
        }
        self.strange: set[str] = set()
        self._ran: dict[str, int] = {}
        self._images = 0
        self._handles: list[Any] = []

    def __enter__(self) -> _Recorder:
        modules = dict(self._network.named_modules())
        self._handles = [
            modules[name].register_forward_hook(self._watch(name)) for name in self.sums
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def look(
        self, inputs: Tensor, digests: Sequence[str], label_kind: LabelKind, seed: int, draws: int
    ) -> None:
        self._images = len(inputs)
        self._ran = dict.fromkeys(self.sums, 0)
        with torch.enable_grad(), tf32(False):
            logits: Tensor = self._network(inputs.detach().requires_grad_())
        self.strange |= {name for name, runs in self._ran.items() if runs != 1}
        values = logits.double().numpy(force=True)
        p = sigmoid(values) if label_kind == "multi_label" else softmax(values)
        for index in range(draws):
            cotangent = logit_directions("hutchinson", label_kind, p, digests, seed, index)
            with tf32(False):
                logits.backward(  # type: ignore[no-untyped-call]
                    torch.from_numpy(cotangent).to(logits), retain_graph=index + 1 < draws
                )

    def _watch(self, name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
            self._ran[name] += 1
            if len(output) != self._images or not output.requires_grad:
                self._ran[name] += 1  # not image by image
                return
            inputs: Input = layer_input(module, arguments[0].detach())

            def square(gradient: Tensor) -> None:
                self.sums[name] += float(inputs.squares(gradient).sum(dtype=torch.float64))

            output.register_hook(square)  # type: ignore[no-untyped-call]

        return hook
