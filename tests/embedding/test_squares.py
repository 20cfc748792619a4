"""Squares of weight gradients against autograd, for every kind of layer and both matrix forms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from app.embedding import squares
from app.embedding.squares import (
    _DepthwiseAtOnce,
    _Unfolded,
    gram_norms,
    layer_input,
    row_norms,
)

GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU"),
    ],
)


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(0, 2)),
        nn.Conv2d(4, 6, 3, dilation=2, padding="same"),
        nn.Conv2d(4, 6, 1, stride=2),
        nn.Conv2d(4, 6, 1, padding=1),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
        nn.Conv2d(4, 4, 5, padding=2, dilation=1, groups=4, bias=False),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
        Conv2dSame(4, 6, 3, stride=2),
        Conv2dSame(4, 4, 5, stride=2, groups=4),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=(0, 2)),
        nn.Conv2d(8, 12, (2, 3), stride=(3, 2), padding=1, dilation=(1, 2)),
        nn.Conv2d(8, 12, 3, dilation=2, padding="same"),
        nn.Conv2d(8, 12, 1),
        nn.Conv2d(8, 12, 1, stride=2),
        nn.Conv2d(8, 12, 1, padding=1),
        nn.Conv2d(16, 24, 3, padding=1, groups=2),
        nn.Conv2d(16, 24, 1, groups=2),
        Conv2dSame(8, 12, 3, stride=2),
    ],
    ids=repr,
)
@pytest.mark.parametrize("size", [5, 12])
def test_convolution_squares_equal_autograd(module: nn.Conv2d, size: int, device: str) -> None:
    torch.manual_seed(0)
    module = copy.deepcopy(module).to(device, torch.float64)
    inputs = torch.randn(3, module.in_channels, size, size + 1, dtype=torch.float64).to(device)
    check_squares(module, inputs)
    check_squares(module, inputs.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize(
    ("form", "module"),
    [
        (_DepthwiseAtOnce, nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4)),
        (_DepthwiseAtOnce, nn.Conv2d(4, 4, 5, padding=2, dilation=1, groups=4, bias=False)),
        (_DepthwiseAtOnce, nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4)),
        (_DepthwiseAtOnce, Conv2dSame(4, 4, 5, stride=2, groups=4)),
        (_Unfolded, nn.Conv2d(3, 6, (3, 5), stride=(2, 1), padding=(0, 2))),
        (_Unfolded, nn.Conv2d(4, 6, 3, dilation=(2, 1), padding="same")),
        (_Unfolded, nn.Conv2d(4, 8, 3, padding=1, groups=4)),
        (_Unfolded, nn.Conv2d(4, 6, 3, padding=1, groups=2)),
        (_Unfolded, Conv2dSame(3, 6, 3, stride=2)),
    ],
    ids=repr,
)
def test_what_a_gpu_does_at_once_equals_autograd(
    form: type[squares.Input], module: nn.Conv2d
) -> None:
    torch.manual_seed(0)
    module = module.double()
    inputs = torch.randn(3, module.in_channels, 9, 12, dtype=torch.float64)
    for ordered in (inputs, inputs.contiguous(memory_format=torch.channels_last)):
        check_squares(module, ordered, form)


def test_both_forms_of_the_row_norms_agree() -> None:
    torch.manual_seed(0)
    gradient, inputs = torch.randn(2, 9, 5).double(), torch.randn(2, 9, 7).double()
    direct = (gradient.mT @ inputs).square().sum(-1)
    torch.testing.assert_close(row_norms(gradient, inputs), direct)
    torch.testing.assert_close(gram_norms(gradient, inputs @ inputs.mT), direct)


@pytest.mark.parametrize(("size", "form"), [(4, "gram_norms"), (40, "_squared")])
def test_small_maps_take_the_gram_form_and_large_ones_the_taps(
    size: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every gradient after the first meets the same Gram matrix."""
    calls = []

    def noted(name: str, real: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *arguments: (calls.append(name), real(*arguments))[1]

    for name in ("gram_norms", "_squared", "_gram"):
        monkeypatch.setattr(squares, name, noted(name, getattr(squares, name)))
    module = nn.Conv2d(16, 16, 3, padding=1)
    inputs = torch.randn(1, 16, size, size)
    form_of_layer = layer_input(module, inputs)
    for _ in range(3):
        form_of_layer.squares(torch.randn_like(inputs))
    assert set(calls) - {"_gram"} == {form}
    assert calls.count("_gram") == (form == "gram_norms")


def test_half_precision_keeps_three_digits() -> None:
    torch.manual_seed(0)
    for module in (nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16)):
        inputs, gradient = torch.randn(2, 16, 12, 12) + 1.0, torch.randn(2, 16, 12, 12)
        half = layer_input(module.bfloat16(), inputs.bfloat16()).squares(gradient.bfloat16())
        full = layer_input(module.float(), inputs).squares(gradient)
        assert half.dtype == torch.float32
        assert ((half - full).norm() / full.norm()) < 5e-3


def test_other_layers_are_refused() -> None:
    with pytest.raises(TypeError, match="Conv3d"):
        layer_input(nn.Conv3d(8, 8, 1), torch.zeros(1, 8, 2, 2, 2))


@pytest.mark.parametrize("shape", [(3, 7), (3, 5, 7), (3, 2, 4, 7), (3, 90, 7)])
def test_linear_squares_equal_autograd(shape: tuple[int, ...]) -> None:
    check_squares(nn.Linear(7, 6).double(), torch.randn(shape, dtype=torch.float64))


def check_squares(
    module: nn.Module,
    inputs: torch.Tensor,
    form: Callable[[Any, torch.Tensor], squares.Input] = layer_input,
) -> None:
    output = module(inputs)
    gradient = torch.randn_like(output)
    expected = []
    for n in range(len(inputs)):
        (weight_gradient,) = torch.autograd.grad(
            module(inputs[n : n + 1]), module.weight, gradient[n : n + 1]
        )
        expected.append(weight_gradient.flatten(1).square().sum(1))
    torch.testing.assert_close(
        form(module, inputs).squares(gradient), torch.stack(expected), rtol=1e-10, atol=1e-12
    )
