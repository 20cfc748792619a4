"""Diagonal Fisher information of the probe's weights, averaged per filter, by per-image squares.

For image n with logits o = f_w(x_n), p = softmax(o), J_n = d o / d w and any random v with
E[v v^T] = diag(p) - p p^T,

    e[f] = sum_n w_n (1/|f|) sum_{w in f} E_v[(J_n^T v)_w^2] / sum_n w_n

with the head's class weights w_n (Achille et al., "Task2Vec", ICCV 2019, equation 2 and section 3;
sketched curvature factors: Dangel et al., "BackPACK", ICLR 2020, section 2.3). Squares are taken
image by image, never of a batch's mean gradient, so the batch size changes nothing.

A few images, the pilot, are looked at first, with two draws each. Their spread says how many draws
every image needs for a wanted noise floor, and stands in for the spread of images with one draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app.embedding.batches import in_batches
from app.embedding.dataset import LabelKind, LabelledImages
from app.embedding.directions import (
    by_digest,
    domain_directions,
    domain_span,
    logit_directions,
)
from app.embedding.head import Head
from app.embedding.noise import noise_floors
from app.embedding.probe import Probe
from app.embedding.recorder import Recorder
from app.embedding.sample_mean import SampleMean
from app.embedding.vector import Estimator

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Stop = Literal["exact", "tolerance", "draws"]

MOST_DRAWS = 16
PILOT_IMAGES = 48
PILOT_DRAWS = 2
UNASKED_IMAGES = 128
"""At most so many images, chosen by their bytes, are asked without a question: what they share is
known well before a large set has been gone through."""
UNASKED_LOOKS = 256
"""So many draws at least, over all those images: few images get more each. Two or more an image, so
that their spread tells how uncertain the mean is."""
HEAD_IMAGES = 16
"""So many images show how the Fisher moves when the head is fitted without a part of the set."""


@dataclass(frozen=True, slots=True)
class FisherEstimate:
    """All arrays (D,) float64, in squared logit-gradient units.

    `vector`          the filter means of the Fisher diagonal
    `domain`          the same with random labels in place of the question
    `domain_error`    standard error of `domain` from finitely many draws on these images
    `draw_error`      standard error of `vector` from finitely many draws on these images
    `sampling_error`  standard error of `vector` from having these images and not others, for the
                      mean over images and for the head
    `estimator`       `exact` also where that needed no more passes than the tolerance wanted draws
    `draws`           passes an image took for `vector`
    `noise_floor`     cosine distance expected between two such vectors from fresh draws
    `stopped`         why no more draws were taken: `exact`, there is nothing to draw; `tolerance`,
                      the noise floor is as low as was asked for; `draws`, no more were allowed
    """

    vector: Array
    domain: Array
    domain_error: Array
    draw_error: Array
    sampling_error: Array
    estimator: Estimator
    draws: int
    noise_floor: float
    stopped: Stop


def estimate_fisher(
    images: LabelledImages,
    probe: Probe,
    head: Head,
    features: npt.NDArray[np.float32],
    *,
    estimator: Estimator,
    draws: int,
    tolerance: float | None,
    seed: int,
    batch_size: int,
    on_batch: Callable[[int], None],
) -> FisherEstimate:
    """One forward pass over the images and as many backward passes as it has draws.

    Some images run once more: those without a question, and those under a head of less.

    Memory grows with the batch, not with the number of images.

    `features`   (N, d), the pooled features that the head was fitted on, in the images' order
    `draws`      at most so many an image; exactly so many where there is no `tolerance`
    `tolerance`  noise floor that is low enough; `exact` takes the place of as many or more draws
    `on_batch`   called with the number of images done; what it raises stops the work
    """
    order = _by_class(images)
    with Recorder(probe) as recorder:
        looks = _Looks(recorder, images, head, estimator, seed, batch_size)
        domain = _domain(looks, domain_span(features, images.digests, head.scale))
        exact = replace(looks, estimator="exact")
        passes = passes_of("exact", draws, head.label_kind, len(images.classes))
        if estimator == "exact" or (tolerance is not None and passes == 1):
            estimate = _measured(exact, domain, order, None, passes, probe, on_batch)
        else:
            on_batch(0)
            pilot = _Pilot.of(looks, order)
            count = draws if tolerance is None else pilot.needed(tolerance, draws, probe)
            while True:
                if tolerance is not None and passes <= count:
                    estimate = _measured(exact, domain, order, None, passes, probe, on_batch)
                    break
                estimate = _measured(looks, domain, order, pilot, count, probe, on_batch)
                if tolerance is not None and estimate.noise_floor <= tolerance:
                    estimate = replace(estimate, stopped="tolerance")
                    break
                if tolerance is None or count == draws:
                    break
                count = min(2 * count, draws)
        moved = estimate.vector * _head_error(looks)
    return replace(estimate, sampling_error=np.hypot(estimate.sampling_error, moved))


def passes_of(estimator: Estimator, draws: int, label_kind: LabelKind, n_classes: int) -> int:
    """Backward passes an image: the draws, or the rank of the logits' covariance for `exact`."""
    if estimator != "exact":
        return draws
    return n_classes if label_kind == "multi_label" else n_classes - 1


@dataclass(frozen=True, slots=True)
class _Looks:
    """What is the same for every look at some of the images."""

    recorder: Recorder
    images: LabelledImages
    head: Head
    estimator: Estimator
    seed: int
    batch_size: int

    def digests(self, rows: Rows) -> list[str]:
        return [self.images.digests[row] for row in rows]

    def weights(self, rows: Rows) -> tuple[Array, npt.NDArray[Any]]:
        """(B,) weight of each image in the mean and (B,) its stratum.

        The weights of a multi-label image's labels are in its directions.
        """
        labels = self.images.labels[rows]
        if labels.ndim == 2:
            return np.ones(len(rows)), np.zeros(len(rows))
        return self.head.image_weights(labels), labels

    def directions(self, head: Head, pooled: Array, rows: Rows, index: int) -> Array:
        """(B, d) cotangents of the features for one draw under a head."""
        kind, digests = head.label_kind, self.digests(rows)
        p = head.probabilities(pooled)
        v = logit_directions(self.estimator, kind, p, digests, self.seed, index)
        if kind == "multi_label":  # each label of an image has a weight of its own
            v *= np.sqrt(head.image_weights(self.images.labels[rows]))
        return head.to_features(v)

    def squares(self, rows: Rows, count: int) -> Array:
        """(B, count, D) per-image filter means, one draw each."""
        pooled = self.recorder.forward(self.images.pixels[rows])
        of_draws = [
            self.recorder.backward(self.directions(self.head, pooled, rows, index))
            for index in range(count)
        ]
        return np.stack(of_draws, axis=1)


@dataclass(frozen=True, slots=True)
class _Pilot:
    """Images that were looked at first.

    `rows`     (P,) their numbers, by class and digest
    `weights`  (P,)
    `means`, `variances`
               (P, D) of each image: mean of its draws, variance of that mean
    `spread`   (D,) variance of a single draw over its expected square, all images alike
    `share`    the set's sum of squared weights over the square of their sum, over the pilot's
    """

    rows: Rows
    weights: Array
    means: Array
    variances: Array
    spread: Array
    share: float
    seed: int

    @classmethod
    def of(cls, looks: _Looks, order: Rows) -> _Pilot:
        chosen = set(by_digest(looks.images.digests)[:PILOT_IMAGES].tolist())
        rows = np.array([row for row in order if row in chosen])
        found = [
            result
            for _, result in in_batches(
                rows, looks.batch_size, lambda part: looks.squares(part, PILOT_DRAWS)
            )
        ]
        squares = np.concatenate(found)
        single = squares.var(axis=1, ddof=1)
        weights, _ = looks.weights(rows)
        every, _ = looks.weights(order)
        seen = np.einsum("p,pkd->d", weights**2, squares**2) / PILOT_DRAWS
        varied = weights**2 @ single
        return cls(
            rows,
            weights,
            squares.mean(axis=1),
            single / PILOT_DRAWS,
            np.divide(varied, seen, out=np.zeros_like(varied), where=seen > 0),
            float((every**2).sum() / every.sum() ** 2 * weights.sum() ** 2 / (weights**2).sum()),
            looks.seed,
        )

    def needed(self, tolerance: float, most: int, probe: Probe) -> int:
        """The fewest draws, of 1, 2, 4 ..., that promise a noise floor within the tolerance."""
        total = self.weights.sum()
        mean = self.weights @ self.means / total
        error = np.sqrt(PILOT_DRAWS * self.share * (self.weights**2 @ self.variances)) / total
        count = 1
        while count < most:
            floor = _floor(mean, error / np.sqrt(count), probe, self.seed)
            if floor <= tolerance:
                break
            count = min(2 * count, most)
        return count


def _measured(
    looks: _Looks,
    domain: tuple[Array, Array],
    order: Rows,
    pilot: _Pilot | None,
    count: int,
    probe: Probe,
    on_batch: Callable[[int], None],
) -> FisherEstimate:
    """One run over all images, with `count` passes each.

    Images go into the mean by class and digest, whatever batch they ran in.
    """
    exact = looks.estimator == "exact"
    known = pilot if pilot is not None and count <= PILOT_DRAWS else None
    seen = np.zeros(len(order), dtype=bool) if known is None else np.isin(order, known.rows)
    mean = SampleMean(probe.dim)
    done = taken = 0

    def add(stop: int, means: Array, variances: Array) -> None:
        """The images up to `stop` in order: fresh ones from the arrays, others from the pilot."""
        nonlocal done
        rows, old = order[done:stop], seen[done:stop]
        if known is not None and old.any():
            at = np.searchsorted(known_places, np.arange(done, stop)[old])
            means = _merged(old, known.means[at], means)
            variances = _merged(old, known.variances[at], variances)
        weights, strata = looks.weights(rows)
        mean.add(means, variances, weights, strata)
        done = stop
        on_batch(done)

    known_places, fresh_places = np.flatnonzero(seen), np.flatnonzero(~seen)
    for rows, squares in in_batches(
        order[fresh_places], looks.batch_size, lambda part: looks.squares(part, count)
    ):
        taken += len(rows)
        stop = int(fresh_places[taken - 1]) + 1
        if exact:
            means = squares.sum(axis=1)
            add(stop, means, np.zeros_like(means))
        else:
            add(stop, squares.mean(axis=1), _variances(squares, pilot))
    if done < len(order):
        none = np.zeros((0, probe.dim))
        add(len(order), none, none)
    vector, draw_error, sampling_error = mean.result()
    without_question, domain_error = domain
    return FisherEstimate(
        vector=vector,
        domain=without_question,
        domain_error=domain_error,
        draw_error=draw_error,
        sampling_error=sampling_error,
        estimator=looks.estimator,
        draws=count,
        noise_floor=_floor(vector, draw_error, probe, looks.seed),
        stopped="exact" if exact else "draws",
    )


def _domain(looks: _Looks, span: Array) -> tuple[Array, Array]:
    """(D,) filter means for random labels in place of the question, and their draw error."""
    rows = by_digest(looks.images.digests)[:UNASKED_IMAGES]
    draws = min(max(2, -(-UNASKED_LOOKS // len(rows))), MOST_DRAWS)
    mean = SampleMean(looks.recorder.dim)

    def look(part: Rows) -> Array:
        looks.recorder.forward(looks.images.pixels[part])
        digests = looks.digests(part)
        of_draws = [
            looks.recorder.backward(domain_directions(span, digests, looks.seed, index))
            for index in range(draws)
        ]
        return np.stack(of_draws, axis=1)

    for part, squares in in_batches(rows, looks.batch_size, look):
        variances = squares.var(axis=1, ddof=1) / draws
        mean.add(squares.mean(axis=1), variances, np.ones(len(part)), np.zeros(len(part)))
    result, draw_error, _ = mean.result()
    return result, draw_error


def _floor(vector: Array, draw_error: Array, probe: Probe, seed: int) -> float:
    floors = noise_floors(vector, draw_error, probe.card.epsilon, seed, ("cosine",))
    return floors["cosine"]


def _merged(old: npt.NDArray[np.bool_], of_old: Array, of_new: Array) -> Array:
    """(B, D) rows of both, each in its place."""
    result = np.empty((len(old), of_old.shape[1]))
    result[old], result[~old] = of_old, of_new
    return result


def _variances(squares: Array, pilot: _Pilot | None) -> Array:
    """(B, D) variances of the means over draws of squares (B, k, D)."""
    count = squares.shape[1]
    if count > 1:
        variances: Array = squares.var(axis=1, ddof=1) / count
        return variances
    if pilot is None:
        raise ValueError("one draw tells nothing of its variance without a pilot")
    return pilot.spread * squares[:, 0] ** 2


def _head_error(looks: _Looks) -> Array:
    """(D,) relative standard error of the vector from the head's own doubt: a jackknife.

    Of logarithms, as another head multiplies: a filter that is all but dead under this one may have
    a thousand times as much under another. A few images meet every head under the same signs, so
    that only the heads differ.
    """
    dim, left_out = looks.recorder.dim, looks.head.left_out
    if not left_out:
        return np.zeros(dim)
    rows = by_digest(looks.images.digests)[:HEAD_IMAGES]
    sampled = replace(looks, estimator="hutchinson")

    def look(part: Rows) -> Array:
        pooled = looks.recorder.forward(looks.images.pixels[part])
        weights, _ = looks.weights(part)
        return np.stack(
            [
                weights @ looks.recorder.backward(sampled.directions(head, pooled, part, 0))
                for head in (looks.head, *left_out)
            ]
        )

    parts = [sums for _, sums in in_batches(rows, looks.batch_size, look)]
    whole, *others = np.sum(parts, axis=0)
    shares = np.divide(others, whole, out=np.ones((len(others), dim)), where=whole > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    k = len(others)
    variance = (k - 1) / k * ((logs - logs.mean(axis=0)) ** 2).sum(axis=0)
    result: Array = np.sqrt(looks.head.left_out_share * variance)
    return result


def _by_class(images: LabelledImages) -> Rows:
    """Numbers of the images by class, then digest: sums run in one order whatever they came in."""
    labels = images.labels if images.labels.ndim == 1 else np.zeros(len(images.labels))
    return np.lexsort([np.array(images.digests), labels])
