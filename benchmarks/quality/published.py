"""The published procedure, for comparison: written from its description, not from its code.

Achille et al., "Task2Vec", ICCV 2019, section 3 and supplement, and the published library's
documentation:

1. A linear layer on the probe's cached features, in eval mode, is trained by Adam (learning rate
   4e-4, weight decay 1e-4, 10 epochs), on batches in which every class is as likely.
2. Monte Carlo Fisher: batches are drawn with replacement, every class as likely; labels are drawn
   from the predicted distribution; the gradient of the batch's *mean* cross-entropy is squared,
   and the squares are averaged over batches. Batch normalisation runs on the batch's own
   statistics. One image in one batch is one draw.
3. The mean over each convolution's filters.

Uncertain: the batch size of both parts, 16 here, which decides the scale of step 2 (squares of
batch means go as one over it) and by the number of steps how far the head gets; that an epoch of
balanced batches has as many images as the set; the head's initial values (uniform in
+-1 / sqrt(d)); and whether anything but cosine distance was meant to absorb the scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from app.embedding.dataset import LabelledImages
from app.embedding.probe import Probe, pretrained_network

Array = npt.NDArray[np.float64]

BATCH_SIZE = 16
DEFAULT_DRAWS = 9_984
EPOCHS = 10
LEARNING_RATE = 4e-4
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True, slots=True)
class TrainingProbe:
    """The probe's network as it was trained, batch normalisation and all.

    `filters`  name of a measured layer's module, and its entries start:stop of the embedding
    """

    probe: Probe
    network: nn.Module
    filters: tuple[tuple[str, int, int], ...]


def training_probe(probe: Probe) -> TrainingProbe:
    network = pretrained_network(probe.card)
    network.eval().requires_grad_(False)
    network.to(probe.device)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0  # a pass in training mode leaves the running statistics alone
    filters = tuple((layer.name, layer.start, layer.stop) for layer in probe.layers)
    return TrainingProbe(probe, network, filters)


def published_vector(
    images: LabelledImages,
    training: TrainingProbe,
    features: npt.NDArray[np.float32],
    *,
    draws: int,
    seed: int,
) -> Array:
    """(D,) filter means of the Monte Carlo Fisher from at least `draws` draws, in whole batches.

    `images`  of a single_label set
    """
    generator = np.random.default_rng(seed)
    labels = images.labels.astype(np.int64)
    weight, bias = trained_head(features, labels, len(images.classes), generator)
    return batch_mean_fisher(images, training, weight, bias, draws=draws, generator=generator)


def batch_mean_fisher(
    images: LabelledImages,
    training: TrainingProbe,
    weight: Tensor,
    bias: Tensor,
    *,
    draws: int,
    generator: np.random.Generator,
) -> Array:
    """(D,) as `published_vector`, for a head of weight (C, d) and bias (C,)."""
    device = training.probe.device
    weight, bias = weight.to(device), bias.to(device)
    labels = images.labels.astype(np.int64)
    modules = dict(training.network.named_modules())
    weights = [modules[name].weight for name, _, _ in training.filters]
    squares = [torch.zeros_like(w) for w in weights]
    norms = [m for m in modules.values() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    batches = -(-draws // BATCH_SIZE)
    try:
        for tensor in weights:
            tensor.requires_grad_(True)
        for norm in norms:
            norm.train()
        for _ in range(batches):
            rows = balanced_rows(labels, BATCH_SIZE, generator)
            with torch.enable_grad():
                pooled = training.network(training.probe.normalise(images.pixels[rows]))
                logits = pooled @ weight.T + bias
                drawn = _drawn_labels(logits.detach().softmax(1), generator)
                gradients = torch.autograd.grad(cross_entropy(logits, drawn), weights)
            for total, gradient in zip(squares, gradients, strict=True):
                total += gradient.square()
    finally:
        for norm in norms:
            norm.eval()
        for tensor in weights:
            tensor.requires_grad_(False)
    result = np.empty(training.probe.dim)
    for (_, start, stop), total in zip(training.filters, squares, strict=True):
        result[start:stop] = total.flatten(1).mean(1).double().numpy(force=True) / batches
    return result


def trained_head(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    n_classes: int,
    generator: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Weight (C, d) and bias (C,)."""
    n, d = features.shape
    bound = 1 / np.sqrt(d)
    weight, bias = (
        torch.from_numpy(generator.uniform(-bound, bound, shape).astype(np.float32))
        for shape in ((n_classes, d), (n_classes,))
    )
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    cached = torch.from_numpy(features)
    for _ in range(EPOCHS * -(-n // BATCH_SIZE)):
        rows = balanced_rows(labels, BATCH_SIZE, generator)
        with torch.enable_grad():
            logits = cached[rows] @ weight.T + bias
            loss = cross_entropy(logits, torch.from_numpy(labels[rows]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return weight.detach(), bias.detach()


def balanced_rows(
    labels: npt.NDArray[np.int64], count: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """`count` rows with replacement, every class as likely, every image of a class as likely."""
    counts = np.bincount(labels)
    weights = 1.0 / counts[labels]
    return generator.choice(len(labels), count, p=weights / weights.sum())


def _drawn_labels(p: Tensor, generator: np.random.Generator) -> Tensor:
    u = generator.random(len(p))
    cumulative = p.double().numpy(force=True).cumsum(axis=1)
    drawn = np.minimum((cumulative < u[:, None]).sum(axis=1), p.shape[1] - 1)
    return torch.from_numpy(drawn).to(p.device)
