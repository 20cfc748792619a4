"""Squared weight gradients of one layer, summed over each filter, image by image.

With a layer's unfolded input U (D x L) and output gradient G (C_out x L) of one image, the weight's
gradient is G U^T, and what is wanted are its squared row norms, or equally diag(G (U^T U) G^T).
Autograd forms no weight gradient, and nothing here unfolds:

- Rows of G U^T come one tap of the kernel at a time, as G times the input shifted by that tap. In a
  frame as wide as the padded input, with G padded by zeros to its width, a shift is an offset.
- U^T U is the sum over taps of the shifted Gram matrix X^T X of single positions, so it costs a
  kernel's area less than it seems to, and it serves every gradient of a batch.

The cheaper of the two is taken for each layer. On a GPU launching many small operations costs more
than they compute: where a processor goes image by image or tap by tap, it does all at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import product

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

NARROW = 8
"""Input channels a group, below which a product of G with one tap is too thin to be fast."""
HALF_PRICE = 8.0
"""How much dearer than a product in half precision one in float32 is, where there is a choice."""


class Input(ABC):
    """A layer's input of one batch, kept to be met by one output gradient after another."""

    @abstractmethod
    def squares(self, gradient: Tensor) -> Tensor:
        """(B, C_out) float sums over each filter's weights of one image's squared weight gradient.

        `gradient`  of the layer's output, (B, C_out, H', W') or for a linear layer (B, ..., C_out)
        """


def layer_input(module: nn.Module, inputs: Tensor) -> Input:
    """The form that suits a layer with input (B, C_in, H, W), or (B, ..., D) if it is linear.

    Raises TypeError for layers other than convolutions and linear ones.
    """
    if isinstance(module, nn.Linear):
        return _Tokens(inputs.reshape(len(inputs), -1, inputs.shape[-1]))
    if not isinstance(module, nn.Conv2d):
        raise TypeError(f"no filter squares for {type(module).__name__}")
    if module.groups == module.in_channels == module.out_channels:
        return _DepthwiseAtOnce(module, inputs) if inputs.is_cuda else _Depthwise(module, inputs)
    if module.in_channels // module.groups < NARROW:
        return _Unfolded(module, inputs) if inputs.is_cuda else _Narrow(module, inputs)
    every_position = module.kernel_size == module.stride == (1, 1)
    if every_position and module.groups == 1 and not any(module._reversed_padding_repeated_twice):
        return _Points(inputs)
    return _Windows(module, inputs)


def row_norms(gradient: Tensor, inputs: Tensor) -> Tensor:
    """(B, C) squared row norms of G^T X, for G (B, L, C) and X (B, L, D)."""
    return _squared(torch.bmm(gradient.mT, inputs)).sum(-1)


def gram_norms(gradient: Tensor, gram: Tensor) -> Tensor:
    """(B, C) diagonal of G^T (X X^T) G, for G (B, L, C) and the Gram matrix (B, L, L)."""
    gradient = gradient.to(gram.dtype)
    return (torch.bmm(gram, gradient) * gradient).sum(1)


class _Tokens(Input):
    """(B, L, D): the positions of a sequence, or of an image under a 1 x 1 convolution."""

    def __init__(self, inputs: Tensor) -> None:
        self._inputs = inputs
        self._gram: Tensor | None = None

    def squares(self, gradient: Tensor) -> Tensor:
        b, length, d = self._inputs.shape
        c = gradient.shape[-1]
        gradient = gradient.reshape(b, length, c)
        price = _price(gradient)
        if price * length * (c + d) >= c * d:
            return row_norms(gradient, self._inputs)
        if self._gram is None:
            self._gram = _gram(self._inputs)
        return gram_norms(gradient, self._gram)


class _Points(Input):
    """A 1 x 1 convolution that reads every position: a linear layer of channels-last pixels."""

    def __init__(self, inputs: Tensor) -> None:
        self._tokens = _Tokens(inputs.permute(0, 2, 3, 1).flatten(1, 2))

    def squares(self, gradient: Tensor) -> Tensor:
        return self._tokens.squares(gradient.permute(0, 2, 3, 1))


class _Windows(Input):
    """Any convolution, in frames: its padded input, split by phase of the stride."""

    def __init__(self, module: nn.Conv2d, inputs: Tensor) -> None:
        self._inputs = inputs
        self._module = module
        self._frames: list[list[Tensor]] = []
        self._width = 0
        self._gram: Tensor | None = None

    def squares(self, gradient: Tensor) -> Tensor:
        b, c_out, height, width = gradient.shape
        module, groups = self._module, self._module.groups
        if not self._frames:
            self._split()
        length = (height - 1) * self._width + width
        framed = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, self._width - width))
        framed = _grouped(framed.reshape(b, -1, c_out)[:, :length], groups)
        c, d = c_out // groups, module.in_channels // groups
        taps = module.kernel_size[0] * module.kernel_size[1]
        price = _price(gradient)
        if self._gram is not None or price * length * (c + d + taps) < c * d * taps:
            if self._gram is None:
                self._gram = self._summed_gram(length)
            squares = gram_norms(framed, self._gram)
        else:
            total = torch.zeros(len(framed), c, d, dtype=_wide(gradient), device=gradient.device)
            for frame, offset in self._taps():
                total += _squared(torch.bmm(framed.mT, frame[:, offset : offset + length]))
            squares = total.sum(-1)
        return squares.reshape(b, c_out)

    def _split(self) -> None:
        """Frames (B, H_f W_f, C_in), one per phase of the stride, all of one size."""
        x = _padded(self._module, self._inputs).permute(0, 2, 3, 1)
        b, height, width, c_in = x.shape
        step_h, step_w = self._module.stride
        rows, self._width = -(-height // step_h), -(-width // step_w)
        if (rows * step_h, self._width * step_w) != (height, width):
            x = F.pad(x, (0, 0, 0, self._width * step_w - width, 0, rows * step_h - height))
        groups = self._module.groups
        self._frames = [
            [
                _grouped(x[:, top::step_h, left::step_w].reshape(b, -1, c_in), groups)
                for left in range(step_w)
            ]
            for top in range(step_h)
        ]

    def _taps(self) -> list[tuple[Tensor, int]]:
        """For each weight of the kernel the frame it reads and how far into it."""
        (step_h, step_w), (apart_h, apart_w) = self._module.stride, self._module.dilation
        taps = []
        for i, j in product(*map(range, self._module.kernel_size)):
            top, left = i * apart_h, j * apart_w
            frame = self._frames[top % step_h][left % step_w]
            taps.append((frame, top // step_h * self._width + left // step_w))
        return taps

    def _summed_gram(self, length: int) -> Tensor:
        grams = {}
        total: Tensor | None = None
        for frame, offset in self._taps():
            if id(frame) not in grams:
                grams[id(frame)] = _gram(frame)
            shifted = slice(offset, offset + length)
            part = grams[id(frame)][:, shifted, shifted]
            total = part.clone() if total is None else total.add_(part)
        if total is None:
            raise RuntimeError("a kernel has at least one weight")
        return total


class _Depthwise(Input):
    """One tap at a time: its weight's gradient is <input shifted by it, G>, a channel each."""

    def __init__(self, module: nn.Conv2d, inputs: Tensor) -> None:
        self._module, self._inputs = module, inputs
        self._padded: Tensor | None = None

    def squares(self, gradient: Tensor) -> Tensor:
        if self._padded is None:
            self._padded = _padded(self._module, self._inputs)
        x, (step_h, step_w) = self._padded, self._module.stride
        height, width = gradient.shape[-2:]
        total = torch.zeros(gradient.shape[:2], dtype=_wide(gradient), device=gradient.device)
        for i, j in product(*map(range, self._module.kernel_size)):
            top, left = i * self._module.dilation[0], j * self._module.dilation[1]
            bottom, right = top + (height - 1) * step_h + 1, left + (width - 1) * step_w + 1
            shifted = x[:, :, top:bottom:step_h, left:right:step_w]
            total += (shifted * gradient).sum((-2, -1), dtype=total.dtype).square()
        return total


class _DepthwiseAtOnce(Input):
    """The engine's own weight gradient, every channel of every image as a channel of one image."""

    def __init__(self, module: nn.Conv2d, inputs: Tensor) -> None:
        self._module = module
        self._inputs = _as_one_image(_padded(module, inputs))

    def squares(self, gradient: Tensor) -> Tensor:
        b, c = gradient.shape[:2]
        of_weight = _weight_gradient(
            self._module,
            self._inputs,
            _as_one_image(gradient),
            gradient.new_empty(b * c, 1, *self._module.kernel_size),
            groups=b * c,
        )
        return _squared(of_weight).flatten(1).sum(1).view(b, c)


class _Unfolded(Input):
    """Few input channels: the unfolded input is small, and G U^T one product for all images."""

    def __init__(self, module: nn.Conv2d, inputs: Tensor) -> None:
        self._module, self._inputs = module, inputs
        self._columns: Tensor | None = None

    def squares(self, gradient: Tensor) -> Tensor:
        b, c_out, height, width = gradient.shape
        groups = self._module.groups
        if self._columns is None:
            self._columns = self._unfold(height, width)
        rows = gradient.reshape(b * groups, c_out // groups, height * width)
        return _squared(torch.bmm(rows, self._columns.mT)).sum(-1).view(b, c_out)

    def _unfold(self, height: int, width: int) -> Tensor:
        """(B groups, D, L), a group's D = C_in / groups times the kernel's area."""
        x = _padded(self._module, self._inputs)
        b, c_in = x.shape[:2]
        of_image, of_channel, of_row, of_column = x.stride()
        (step_h, step_w), (apart_h, apart_w) = self._module.stride, self._module.dilation
        windows = x.as_strided(
            (b, c_in, *self._module.kernel_size, height, width),
            (
                of_image,
                of_channel,
                apart_h * of_row,
                apart_w * of_column,
                step_h * of_row,
                step_w * of_column,
            ),
        )
        return windows.reshape(b * self._module.groups, -1, height * width)


class _Narrow(Input):
    """Few input channels, as in a first layer: the engine's own weight gradient, image by image."""

    def __init__(self, module: nn.Conv2d, inputs: Tensor) -> None:
        self._module, self._inputs = module, _padded(module, inputs)

    def squares(self, gradient: Tensor) -> Tensor:
        module = self._module
        squares = [
            _squared(
                _weight_gradient(
                    module, image[None], cotangent[None], module.weight, groups=module.groups
                )
            )
            .flatten(1)
            .sum(1)
            for image, cotangent in zip(self._inputs, gradient, strict=True)
        ]
        return torch.stack(squares)


def _weight_gradient(
    module: nn.Conv2d, inputs: Tensor, gradient: Tensor, weight: Tensor, *, groups: int
) -> Tensor:
    """Of all images together, as the engine computes it; of `weight` only the shape counts."""
    of_weight: Tensor = torch.ops.aten.convolution_backward(
        gradient,
        inputs,
        weight,
        None,
        list(module.stride),
        [0, 0],
        list(module.dilation),
        False,
        [0, 0],
        groups,
        [False, True, False],
    )[1]
    return of_weight


def _as_one_image(x: Tensor) -> Tensor:
    """(B, C, H, W) to (1, B C, H, W)."""
    return x.contiguous(memory_format=torch.contiguous_format).view(1, -1, *x.shape[2:])


def _gram(x: Tensor) -> Tensor:
    """X X^T (B, L, L) in float32 or better: in it numbers cancel that a product of rows keeps."""
    x = x.to(_wide(x))
    return torch.bmm(x, x.mT)


def _price(gradient: Tensor) -> float:
    """Of a product for the Gram form, which is float32, in products of the gradient's precision."""
    return 1.0 if gradient.dtype == _wide(gradient) else HALF_PRICE


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _squared(x: Tensor) -> Tensor:
    return x.to(_wide(x)).square_()


def _grouped(frame: Tensor, groups: int) -> Tensor:
    """(B, L, C) to (B groups, L, C / groups)."""
    if groups == 1:
        return frame
    b, length, c = frame.shape
    split = frame.reshape(b, length, groups, c // groups).transpose(1, 2)
    return split.reshape(b * groups, length, c // groups)


def _padded(module: nn.Conv2d, x: Tensor) -> Tensor:
    if isinstance(module, Conv2dSame):
        padded: Tensor = pad_same(
            x, list(module.kernel_size), list(module.stride), list(module.dilation)
        )
        return padded
    # torch keeps the padding of every mode ("same" included) in this form, last dimension first
    return F.pad(x, module._reversed_padding_repeated_twice)
