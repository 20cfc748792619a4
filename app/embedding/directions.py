"""The cotangents that a Fisher diagonal is sampled with: of the logits, and of the features.

Draws depend on (seed, image, pass) alone, so neither order nor batch changes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve

from app.embedding.dataset import LabelKind
from app.embedding.vector import Estimator

Array = npt.NDArray[np.float64]

DOMAIN_IMAGES = 2_048
"""At most so many images span the random directions of the domain part."""
DOMAIN_PENALTY = 1.0
"""lambda of the ridge regression on random labels, on features of unit root mean square. Without
it (one step of least squares) twins of public tasks are found less often by what the question adds:
0.54 against 0.61 of 94; a tenth of it does as well."""


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


def by_digest(digests: Sequence[str]) -> npt.NDArray[np.int64]:
    """Image numbers in an order that depends on each image's bytes and is random all the same."""
    return np.argsort(np.array(digests), kind="stable")


def domain_span(features: npt.NDArray[np.float32], digests: Sequence[str], scale: float) -> Array:
    """(M, d) what each image of at most DOMAIN_IMAGES adds to a domain direction.

    With X (M x d) the features in the head's units, centred, over sqrt(M), S = X^T X their
    covariance and lambda = DOMAIN_PENALTY, the rows of (X X^T + lambda)^-1 X, which is
    X (S + lambda)^-1: ridge regression of labels on the features is a product with it.

    Images stand and are thinned out by their digests: no label has a say, so the domain parts of
    one pool of images are the same whatever is asked of it.
    """
    x = features[by_digest(digests)[:DOMAIN_IMAGES]].astype(np.float64) / scale
    x = (x - x.mean(axis=0)) / np.sqrt(len(x))
    gram = x @ x.T
    gram[np.diag_indices_from(gram)] += DOMAIN_PENALTY
    result: Array = solve(gram, x, assume_a="pos") / scale
    return result


def domain_directions(span: Array, digests: Sequence[str], seed: int, index: int) -> Array:
    """(B, d) cotangents r^T X (S + lambda)^-1 of the features for draw `index`.

    r = +-1, fresh for every image and draw.

    What a head would be that ridge regression fits on random labels: the images, and no question.
    """
    signs = [_signs(_generator(seed, digest, f"domain-{index}"), len(span)) for digest in digests]
    result: Array = np.stack(signs) @ span
    return result


def _generator(seed: int, digest: str, purpose: str) -> np.random.Generator:
    key = hashlib.blake2b(f"{seed}:{digest}:{purpose}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def _signs(generator: np.random.Generator, size: int) -> Array:
    return 1.0 - 2.0 * generator.integers(0, 2, size).astype(np.float64)
