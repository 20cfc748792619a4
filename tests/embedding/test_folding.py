from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from app.embedding.folding import fold_batch_norms


class Block(nn.Module):
    """A convolution read by its normalisation and by a shortcut, and one read once."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(3, 4, 3)
        self.shared_norm = nn.BatchNorm2d(4)
        self.alone = nn.Conv2d(4, 4, 1)
        self.alone_norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 1)
        self.twice_norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)
        x = torch.relu(self.shared_norm(x)) + x
        x = torch.relu(self.alone_norm(self.alone(x)))
        x = self.twice_norm(self.twice(x))
        x = self.twice_norm(self.twice(x))
        return x.mean((2, 3))


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    block = Block().double().eval().requires_grad_(False)
    for norm in (block.shared_norm, block.alone_norm, block.twice_norm):
        for tensor in (norm.running_mean, norm.weight, norm.bias):
            tensor.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    return block


def test_only_a_norm_that_alone_reads_a_convolution_is_folded(block: Block) -> None:
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before = block(images)
    scales = fold_batch_norms(block, images[:1])
    assert set(scales) == {"alone"}
    assert isinstance(block.alone_norm, nn.Identity)
    torch.testing.assert_close(block(images), before)


def test_the_scale_turns_the_folded_gradient_into_the_original_one(block: Block) -> None:
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    weight = block.alone.weight.requires_grad_()
    (original,) = torch.autograd.grad(block(images).sum(), weight)
    scales = fold_batch_norms(block.requires_grad_(False), images[:1])
    weight = block.alone.weight.requires_grad_()
    (folded,) = torch.autograd.grad(block(images).sum(), weight)
    torch.testing.assert_close(folded * scales["alone"].view(-1, 1, 1, 1), original)


def test_a_silenced_channel_folds_to_nothing(block: Block) -> None:
    block.alone_norm.weight[2] = 0.0
    scales = fold_batch_norms(block, torch.randn(1, 3, 8, 8, dtype=torch.float64))
    assert scales["alone"][2] == 0.0
    assert not block.alone.weight[2].any()
