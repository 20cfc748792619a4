"""Runs a probe forward once a batch, then backward as often as asked, squaring on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from app.embedding.probe import FilterLayer, Probe, filled
from app.embedding.squares import Input, layer_input
from app.embedding.tf32 import tf32

Array = npt.NDArray[np.float64]


class Recorder:
    """Within the context every measured layer keeps its input, and each backward pass turns a
    layer's output gradient into filter squares the moment it arrives; no gradient is kept.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._leaves: list[Tensor] = []
        self._pooled: Tensor | None = None
        self._squares: Tensor | None = None
        self._handles: list[Any] = []

    @property
    def dim(self) -> int:
        return self._probe.dim

    def __enter__(self) -> Recorder:
        self._handles = [
            layer.module.register_forward_hook(self._watch(layer)) for layer in self._probe.layers
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        # The graph's hooks hold this recorder: kept, it would keep them and a batch's activations.
        self._leaves, self._pooled, self._squares = [], None, None

    def forward(self, pixels: npt.NDArray[np.uint8]) -> Array:
        """Pooled features (B, d) of a batch (B, S, S, 3); its graph is kept until the next."""
        self._leaves, self._pooled = [], None
        with torch.enable_grad(), tf32(False):
            self._pooled = self._probe.network(self._probe.normalise(filled(pixels)))
        result: Array = self._pooled.double().numpy(force=True)[: len(pixels)]
        return result

    def backward(self, feature_directions: Array) -> Array:
        """(B, D) filter means of squared weight gradients for cotangents (B, d) of the features."""
        if self._pooled is None:
            raise RuntimeError("backward needs a forward pass")
        pooled, n = self._pooled, len(feature_directions)
        cotangent = torch.zeros_like(pooled)
        cotangent[:n] = torch.from_numpy(feature_directions)
        self._squares = torch.zeros(
            (len(pooled), self._probe.dim),
            dtype=torch.promote_types(pooled.dtype, torch.float32),
            device=pooled.device,
        )
        with tf32(False):
            torch.autograd.backward(pooled, cotangent, retain_graph=True, inputs=self._leaves)
        for leaf in self._leaves:
            leaf.grad = None
        result: Array = self._squares[:n].numpy(force=True).astype(np.float64)
        return result

    def _watch(self, layer: FilterLayer) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        def hook(module: nn.Module, arguments: tuple[Tensor], output: Tensor) -> Tensor:
            # Nothing before the first measured layers wants a gradient: the graph starts here.
            if not output.requires_grad:
                output = output.detach().requires_grad_()
                self._leaves.append(output)
            inputs: Input = layer_input(module, arguments[0].detach())

            def square(gradient: Tensor) -> None:
                if self._squares is not None:
                    squares = inputs.squares(gradient) * layer.factors
                    self._squares[:, layer.start : layer.stop] = squares

            output.register_hook(square)  # type: ignore[no-untyped-call]
            return output

        return hook
