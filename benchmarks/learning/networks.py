"""Networks that learn from nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


def plain(kinds: int, width: int = 16) -> nn.Module:
    """After Springenberg et al., "Striving for simplicity: the all convolutional net", 2015."""

    def block(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(c_out), nn.ReLU()]

    return nn.Sequential(
        *block(1, width, 1),
        *block(width, width, 2),
        *block(width, 2 * width, 1),
        *block(2 * width, 2 * width, 2),
        *block(2 * width, 4 * width, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, kinds),
    )


def residual(kinds: int, width: int = 32) -> nn.Module:
    """ResNet-18 as it is for pictures of 32 pixels, half as wide (K. He et al., "Deep residual
    learning for image recognition", CVPR 2016)."""
    sizes = [width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
    blocks = [_Block(c_in, c_out) for c_in, c_out in zip([width, *sizes[:-1]], sizes, strict=True)]
    made = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, kinds),
    )
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return made


class _Block(nn.Module):
    """Two convolutions beside a way around them, which is all that counts at first (S. De,
    S. Smith, "Batch normalization biases residual blocks towards the identity function in deep
    networks", NeurIPS 2020)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        stride = 1 if c_in == c_out else 2
        self.inner = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.around = (
            nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        )
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.around(x) + self.share * self.inner(x))
