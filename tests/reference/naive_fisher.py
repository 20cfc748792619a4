"""The yardstick: the Fisher diagonal by autograd, one image and one logit at a time.

Written from the definition alone, F = J^T (diag(p) - p p^T) J with the whole Jacobian J, and
without a line of the package it judges.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def naive_fisher(
    network: nn.Module,
    weights: list[Tensor],
    head_weight: Tensor,
    head_bias: Tensor,
    images: Tensor,
    *,
    multi_label: bool = False,
) -> list[Tensor]:
    """Per weight tensor (C_out, ...), the per-image filter means (N, C_out) of the Fisher diagonal."""
    for weight in weights:
        weight.requires_grad_(True)
    result = [torch.zeros(len(images), len(weight), dtype=images.dtype) for weight in weights]
    for n, image in enumerate(images):
        logits = network(image[None])[0] @ head_weight.T + head_bias
        if multi_label:
            p = torch.sigmoid(logits).detach()
            covariance = torch.diag(p * (1 - p))
        else:
            p = torch.softmax(logits, 0).detach()
            covariance = torch.diag(p) - torch.outer(p, p)
        jacobians = [[] for _ in weights]
        for logit in logits:
            gradients = torch.autograd.grad(logit, weights, retain_graph=True)
            for rows, gradient in zip(jacobians, gradients, strict=True):
                rows.append(gradient.flatten())
        for k, (weight, rows) in enumerate(zip(weights, jacobians, strict=True)):
            jacobian = torch.stack(rows)  # (C, parameters)
            diagonal = torch.einsum("cw,cd,dw->w", jacobian, covariance, jacobian)
            result[k][n] = diagonal.view(len(weight), -1).mean(1)
    return result
