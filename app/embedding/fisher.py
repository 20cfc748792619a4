"""Diagonal Fisher information of the probe's weights, averaged per filter, by per-image squares.

For image n with logits o = f_w(x_n), p = softmax(o), J_n = d o / d w and any random v with
E[v v^T] = diag(p) - p p^T,

    e[f] = sum_n w_n (1/|f|) sum_{w in f} E_v[(J_n^T v)_w^2] / sum_n w_n

with the head's class weights w_n (Achille et al., "Task2Vec", ICCV 2019, equation 2 and section 3;
sketched curvature factors: Dangel et al., "BackPACK", ICLR 2020, section 2.3). Squares are taken
image by image, never of a batch's mean gradient, so the batch size changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.embedding.dataset import LabelKind, LabelledImages
from app.embedding.head import Head, Labels
from app.embedding.probe import Probe
from app.embedding.recorder import Recorder
from app.embedding.vector import Estimator

Array = npt.NDArray[np.float64]

DOMAIN_IMAGES = 2_048
"""At most so many images span the random directions of the domain part."""


@dataclass(frozen=True, slots=True)
class FisherEstimate:
    """All (D,) float64, in squared logit-gradient units.

    `vector`          the filter means of the Fisher diagonal
    `domain`          the same with random labels in place of the question
    `draw_error`      standard error of `vector` from finitely many draws on these images
    `sampling_error`  standard error of `vector` from having these images and not others
    """

    vector: Array
    domain: Array
    draw_error: Array
    sampling_error: Array


def estimate_fisher(
    images: LabelledImages,
    probe: Probe,
    head: Head,
    features: npt.NDArray[np.float32],
    *,
    estimator: Estimator,
    draws: int,
    seed: int,
    batch_size: int,
    on_batch: Callable[[int], None],
) -> FisherEstimate:
    """One forward pass over the images, and as many backward passes as `passes_of` says, plus one.

    Memory grows with the batch, not with the number of images.

    `features`  (N, d), the pooled features that the head was fitted on, in the images' order
    `on_batch`  called with the number of images done; what it raises stops the work
    """
    n = len(images.digests)
    passes = passes_of(estimator, draws, head.label_kind, len(images.classes))
    order = _by_class(images)
    centred = _centred(features, images.digests, head.scale)
    tally = _Tally(probe.dim)
    domain = np.zeros(probe.dim)
    with Recorder(probe) as recorder:
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            labels, digests = images.labels[rows], [images.digests[row] for row in rows]
            pooled = recorder.forward(images.pixels[rows])
            p = head.probabilities(pooled)
            weights = head.image_weights(labels)
            total = np.zeros((len(digests), probe.dim))
            total_squared = np.zeros_like(total)
            for index in range(passes):
                v = logit_directions(estimator, head.label_kind, p, digests, seed, index)
                if weights.ndim == 2:  # each label of an image has a weight of its own
                    v *= np.sqrt(weights)
                squares = recorder.backward(head.to_features(v))
                total += squares
                if estimator != "exact":  # nothing is random: no variance is wanted
                    total_squared += squares**2
            domain += recorder.backward(_domain_directions(centred, digests, seed)).sum(axis=0)
            if estimator == "exact":
                means, variances = total, np.zeros_like(total)
            else:
                means = total / draws
                variances = np.maximum(total_squared - draws * means**2, 0.0) / (draws - 1)
            if weights.ndim == 2:
                tally.add(means, variances / draws, np.ones(len(digests)), np.zeros(len(digests)))
            else:
                tally.add(means, variances / draws, weights, labels)
            on_batch(start + len(digests))
    vector, draw_error, sampling_error = tally.result()
    return FisherEstimate(vector, domain / n, draw_error, sampling_error)


def passes_of(estimator: Estimator, draws: int, label_kind: LabelKind, n_classes: int) -> int:
    """Backward passes an image: the draws, or the rank of the logits' covariance for `exact`."""
    if estimator != "exact":
        return draws
    return n_classes if label_kind == "multi_label" else n_classes - 1


def logit_directions(
    estimator: Estimator,
    label_kind: LabelKind,
    p: Array,
    digests: Sequence[str],
    seed: int,
    index: int,
) -> Array:
    """(B, C) float64 cotangents v of the logits for pass `index`, from probabilities p (B, C).

    `exact`       column `index` of the triangular V with V V^T = diag(p) - p p^T: with the tail
                  sums s_k = p_k + ... + p_C, v_k = sqrt(p_k s_{k+1} / s_k) at k and
                  -p_j sqrt(p_k / (s_k s_{k+1})) at j > k: C - 1 columns, as the rank is;
                  for multi-label sqrt(p_c (1 - p_c)) onehot_c
    `hutchinson`  E[v v^T] is that matrix: sqrt(p) z - p (sqrt(p) . z), z = +-1;
                  for multi-label sqrt(p (1 - p)) z
    `mc`          p - y with the label(s) y drawn from p, as the paper does

    Draws depend on (seed, image, pass) alone, so neither order nor batch changes them.
    """
    multi_label = label_kind == "multi_label"
    b, c = p.shape
    if estimator == "exact":
        here = p[:, index]
        column = np.zeros_like(p)
        if multi_label:
            column[:, index] = np.sqrt(here * (1 - here))
            return column
        later = p[:, index + 1 :].sum(axis=1)
        tail = np.maximum(here + later, np.finfo(np.float64).tiny)
        column[:, index] = np.sqrt(here * later / tail)
        shares = np.divide(
            p[:, index + 1 :],
            later[:, None],
            out=np.zeros((b, c - index - 1)),
            where=later[:, None] > 0,
        )
        column[:, index + 1 :] = -shares * column[:, index : index + 1]
        return column
    generators = [_generator(seed, digest, f"{estimator}-{index}") for digest in digests]
    if estimator == "hutchinson":
        z = np.stack([_signs(generator, c) for generator in generators])
        if multi_label:
            return np.sqrt(p * (1 - p)) * z
        v: Array = np.sqrt(p) * z
        v -= p * v.sum(axis=1, keepdims=True)
        return v
    if multi_label:
        drawn_labels = [g.random(c) < row for g, row in zip(generators, p, strict=True)]
        return p - np.stack(drawn_labels).astype(np.float64)
    u = np.array([generator.random() for generator in generators])
    drawn = np.minimum((p.cumsum(axis=1) < u[:, None]).sum(axis=1), c - 1)
    y = np.zeros((b, c))
    y[np.arange(b), drawn] = 1.0
    return p - y


class _Tally:
    """Weighted mean over images with its two variances, fed class by class in O(D) memory.

    The embedding is a class-weighted mean, so its sampling variance is that of a stratified sample:
    sum over classes of (class share)^2 (variance within the class) / n_c. A class with one image
    borrows the variance pooled over the others; where all have one, that of all images stands in,
    which holds the differences between classes too and so errs on the large side.
    """

    def __init__(self, dim: int) -> None:
        self.sum, self.weight = np.zeros(dim), 0.0
        self.draw_variance, self.variance = np.zeros(dim), np.zeros(dim)
        self.pooled, self.freedom, self.lonely = np.zeros(dim), 0, 0.0
        self.all, self.all_squared, self.n = np.zeros(dim), np.zeros(dim), 0
        self._stratum: float | None = None
        self._open()

    def _open(self) -> None:
        dim = len(self.sum)
        self._n, self._w = 0, 0.0
        self._mean, self._scatter = np.zeros(dim), np.zeros(dim)

    def add(self, means: Array, draw_variances: Array, weights: Array, strata: Labels) -> None:
        """Images (B, D): their means over draws, those means' draw variances, weights and class."""
        self.all += means.sum(axis=0)
        self.all_squared += (means**2).sum(axis=0)
        self.n += len(means)
        edges = np.flatnonzero(np.diff(strata)) + 1
        for rows in np.split(np.arange(len(strata)), edges):
            if strata[rows[0]] != self._stratum:
                self._close()
                self._stratum = float(strata[rows[0]])
            self._w = float(weights[rows[0]])
            self.draw_variance += self._w**2 * draw_variances[rows].sum(axis=0)
            mean = means[rows].mean(axis=0)
            scatter = ((means[rows] - mean) ** 2).sum(axis=0)
            n, m = self._n, len(rows)
            shift = mean - self._mean
            self._n = n + m
            self._mean += shift * (m / self._n)
            self._scatter += scatter + shift**2 * (n * m / self._n)

    def _close(self) -> None:
        if self._n:
            self.sum += self._w * self._n * self._mean
            self.weight += self._w * self._n
        if self._n > 1:
            self.variance += self._w**2 * self._n * self._scatter / (self._n - 1)
            self.pooled += self._scatter
            self.freedom += self._n - 1
        elif self._n == 1:
            self.lonely += self._w**2
        self._open()

    def result(self) -> tuple[Array, Array, Array]:
        """Mean, draw error, sampling error, (D,) each.

        The scatter of images holds the draws' own, which is taken out of the sampling error.
        """
        self._close()
        if self.freedom:
            self.variance += self.lonely * self.pooled / self.freedom
        elif self.n > 1:
            scatter = np.maximum(self.all_squared - self.all**2 / self.n, 0.0)
            self.variance += self.lonely * scatter / (self.n - 1)
        sampling = np.maximum(self.variance - self.draw_variance, 0.0)
        return (
            self.sum / self.weight,
            np.sqrt(self.draw_variance) / self.weight,
            np.sqrt(sampling) / self.weight,
        )


def _by_class(images: LabelledImages) -> npt.NDArray[np.int64]:
    """Numbers of the images by class, then digest: sums run in one order whatever they came in."""
    labels = images.labels if images.labels.ndim == 1 else np.zeros(len(images.labels))
    return np.lexsort([np.array(images.digests), labels])


def _centred(features: npt.NDArray[np.float32], digests: Sequence[str], scale: float) -> Array:
    """(M, d) features, centred, in the head's units, over sqrt(M).

    Images stand and are thinned out in the order of their digests: no label has a say, so the
    domain parts of one pool of images are the same whatever is asked of it.
    """
    by_digest = np.argsort(np.array(digests), kind="stable")
    places = np.linspace(0, len(by_digest) - 1, min(len(by_digest), DOMAIN_IMAGES))
    chosen = by_digest[np.unique(places.round().astype(np.int64))]
    x = features[chosen].astype(np.float64) / scale
    result: Array = (x - x.mean(axis=0)) / np.sqrt(len(x))
    return result / scale


def _domain_directions(centred: Array, digests: Sequence[str], seed: int) -> Array:
    """(B, d) cotangents F_c^T r of the features, r = +-1 fresh for every image.

    What one least-squares step on random labels would ask of the features: the images, and no
    question. In expectation over r this is J^T S J with S the features' covariance.
    """
    signs = [_signs(_generator(seed, digest, "domain"), len(centred)) for digest in digests]
    result: Array = np.stack(signs) @ centred
    return result


def _generator(seed: int, digest: str, purpose: str) -> np.random.Generator:
    key = hashlib.blake2b(f"{seed}:{digest}:{purpose}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def _signs(generator: np.random.Generator, size: int) -> Array:
    return 1.0 - 2.0 * generator.integers(0, 2, size).astype(np.float64)
