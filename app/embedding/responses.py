"""A probe's responses: what each of its stages says of an image, channel by channel.

Of every channel at the end of a stage the mean and the standard deviation over positions, or over
tokens. What the last stage no longer tells apart, hue or sharpness or how a thing is drawn, an
early one still does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Stage:
    """A module whose output has so many channels."""

    name: str
    module: nn.Module
    channels: int


def stages_of(network: nn.Module) -> tuple[Stage, ...]:
    """Those that timm lists as the network's stages.

    InvalidRequest where it lists none, or one that the network has no module for: with a stage left
    out in silence, two versions of timm would look at different responses.
    """
    listed: Any = getattr(network, "feature_info", None)
    modules = dict(network.named_modules())
    names = [str(info["module"]) for info in listed or ()]
    missing = [name for name in names if name not in modules]
    if missing or not names:
        raise InvalidRequest(
            "network-unsupported",
            f"{type(network).__name__} does not say which of its modules are stages"
            + (f": it has no module {missing[0]!r}." if missing else "."),
            "Choose another network as the probe.",
        )
    return tuple(
        Stage(name, modules[name], int(info["num_chs"]))
        for name, info in zip(names, listed, strict=True)
    )


class Observer:
    """Within the context every stage's responses to the last pass are kept."""

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        self._stages = stages
        self._seen: dict[str, Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Observer:
        self._handles = [
            stage.module.register_forward_hook(self._watch(stage)) for stage in self._stages
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def responses(self) -> Tensor:
        """(B, K), K twice the channels: stage by stage the means, then the deviations."""
        return torch.cat([self._seen[stage.name] for stage in self._stages], dim=1)

    def _watch(self, stage: Stage) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            values = _channels_last(output, stage).flatten(1, -2)
            values = values.to(torch.promote_types(values.dtype, torch.float32))
            deviations, means = torch.std_mean(values, dim=1, correction=0)
            self._seen[stage.name] = torch.cat([means, deviations], dim=1)

        return hook


def _channels_last(output: Tensor, stage: Stage) -> Tensor:
    """Images (B, ..., C): timm's stages give (B, C, H, W), (B, H, W, C) or tokens (B, T, C)."""
    if output.ndim == 4 and output.shape[1] == stage.channels:
        return output.permute(0, 2, 3, 1)
    if output.ndim in {3, 4} and output.shape[-1] == stage.channels:
        return output
    raise InvalidRequest(
        "network-unsupported",
        f"The stage {stage.name} gives {tuple(output.shape)}, not {stage.channels} channels an "
        "image.",
        "Choose another network as the probe.",
    )
