"""The head's penalty, by a vote of those that do well on images held out."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from app.embedding.regression import (
    Array,
    Coordinates,
    Indices,
    Labels,
    held_out_log_p,
    image_weights_of,
    minimise,
)

Flags = npt.NDArray[np.bool_]

FOLDS = 5
PENALTIES: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-8, 5))
"""lambda in: mean weighted loss + lambda / 2 |W|^2, on features of unit root mean square."""
FALLBACK_PENALTY = 1.0
"""For a set in which every class has a single image: there is nothing to validate on."""
DOUBT = 2.0
"""Standard errors at which a penalty's vote is down to 0.6. Over pairs of sets of one task from
other images, of 1, 2, the one-standard-error rule and the best alone, 2 keeps the Fisher's size
steadiest against its spread between tasks."""
ROUNDING = 1e-8
"""Largest entry of the gradient that may be left in a fit to most of the images: the vote then has
six digits, and the doubt about the head more than it needs."""
PATH_KEPT = 4
POLL_SECONDS = 0.1


def _folds(labels: Labels) -> Indices:
    """(N,) fold of each image, stratified; -1 for a class's only image, which always trains."""
    folds = np.arange(len(labels)) % FOLDS
    if labels.ndim == 1:
        for c in np.unique(labels):
            members = np.flatnonzero(labels == c)
            folds[members] = np.arange(len(members)) % FOLDS if len(members) > 1 else -1
    return folds


@dataclass(frozen=True, slots=True)
class Choice:
    """`left_out`: coefficients and penalty without each fold. None: nothing could be held out."""

    penalty: float
    likelihood: float | None
    accuracy: float | None
    left_out: tuple[tuple[Array, float], ...] = ()


@dataclass(frozen=True, slots=True)
class _Trial:
    """One penalty on held-out images: `terms` (n,) weighted log-likelihoods, `correct` labels."""

    penalty: float
    terms: Array
    correct: Flags


def choose_penalty(
    rows: Coordinates,
    labels: Labels,
    class_weights: Array,
    penalties: Sequence[float],
    report: Callable[[int, int], None],
) -> Choice:
    """The penalty by a vote of those that are about as good as the best on held-out images.

    `rows` and `labels` of the images that choose, in the order that makes the folds.

    From the strongest penalty down, each fit starting where the last two lead; once two penalties
    in a row did worse than the best, weaker ones only overfit more.
    """
    folds = _folds(labels)
    used = [fold for fold in range(FOLDS) if (folds == fold).any() and (folds != fold).any()]
    if not used:
        return Choice(penalties[0] if len(penalties) == 1 else FALLBACK_PENALTY, None, None)
    weights = image_weights_of(class_weights, labels)
    image_weights = weights if weights.ndim == 1 else weights.sum(axis=1)
    paths = {fold: _Path() for fold in used}
    path = sorted(penalties, reverse=True)
    trials: list[_Trial] = []

    def fitted(fold: int, penalty: float, on_step: Callable[[], None]) -> Array:
        train = np.flatnonzero(folds != fold)
        return minimise(
            rows.take(train),
            labels[train],
            class_weights,
            penalty,
            start=paths[fold].start(penalty),
            rounding=ROUNDING,
            on_step=on_step,
        )

    for step, penalty in enumerate(path):

        def on_step(done: int = step) -> None:
            report(done, len(path) + 1)

        terms = np.zeros(len(labels))
        correct = np.zeros(labels.shape, dtype=bool)
        found = _together([partial(fitted, fold, penalty) for fold in used], on_step)
        for fold, solution in zip(used, found, strict=True):
            paths[fold].add(penalty, solution)
            held = np.flatnonzero(folds == fold)
            log_p, correct[held] = held_out_log_p(rows.take(held).z @ solution.T, labels[held])
            weighted = weights[held] * log_p
            terms[held] = weighted if weighted.ndim == 1 else weighted.sum(axis=1)
        trials.append(_Trial(penalty, terms, correct[folds >= 0]))
        report(step + 1, len(path) + 1)
        likelihoods = [trial.terms.sum() for trial in trials]
        if len(trials) > 2 and max(likelihoods[-2:]) <= max(likelihoods[:-2]):
            break
    penalty = _voted(trials, folds >= 0)
    nearest = min(trials, key=lambda trial: abs(np.log(trial.penalty / penalty)))
    held_out = folds >= 0
    without = [
        _voted(trials, held_out & (folds != fold)) if len(used) > 1 else penalty for fold in used
    ]
    left_out = _together(
        [partial(fitted, fold, voted) for fold, voted in zip(used, without, strict=True)],
        lambda: report(len(path), len(path) + 1),
    )
    return Choice(
        penalty,
        float(nearest.terms.sum() / image_weights[held_out].sum()),
        float(nearest.correct.mean()),
        tuple(zip(left_out, without, strict=True)),
    )


class _Path:
    """A fold's last solutions, from one penalty to the next weaker one.

    Where a set can be separated they grow as the penalty's logarithm falls, on a straight line.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[float, Array]] = deque(maxlen=PATH_KEPT)

    def add(self, penalty: float, solution: Array) -> None:
        self._last.append((math.log(penalty), solution))

    def start(self, penalty: float) -> Array | None:
        """On the line through the two solutions that are nearest; None before there is one."""
        log = math.log(penalty)
        nearest = sorted(self._last, key=lambda at: abs(at[0] - log))[:2]
        if len(nearest) < 2:
            return nearest[0][1] if nearest else None
        (a, at_a), (b, at_b) = nearest
        return at_a + (log - a) / (b - a) * (at_b - at_a)


def _together(
    fits: Sequence[Callable[[Callable[[], None]], Array]], on_step: Callable[[], None]
) -> list[Array]:
    """What each of the fits gives, called with what they call at every step, on threads.

    A fit multiplies matrices too small for several threads each, which would wait for one another
    longer than they compute. `on_step` is called now and then from here; what it raises stops all.
    """
    stop = threading.Event()

    def step() -> None:
        if stop.is_set():
            raise _StoppedError

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(len(fits)) as pool:
        running = [pool.submit(fit, step) for fit in fits]
        try:
            while wait(running, timeout=POLL_SECONDS).not_done:
                on_step()
        except BaseException:
            stop.set()
            raise
        return [each.result() for each in running]


class _StoppedError(Exception):
    """Of a fit that nobody waits for any more."""


def _voted(trials: Sequence[_Trial], images: Flags) -> float:
    """The penalties' mean on a log scale, weighted by how far each is from the best.

    A penalty whose held-out log-likelihood lies t standard errors of their difference, image by
    image, below the best has the weight exp(-(t / DOUBT)^2 / 2). The likelihood is flat over
    decades of the penalty and the Fisher information is not: a choice of one, the best or the
    strongest within a standard error, jumps between sets that differ by chance, and with it the
    embedding's size.
    """
    if len(trials) == 1:
        return trials[0].penalty
    terms = np.stack([trial.terms[images] for trial in trials])
    gaps = terms[np.argmax(terms.sum(axis=1))] - terms
    errors = np.sqrt(((gaps - gaps.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    total = gaps.sum(axis=1)
    t = np.divide(total, errors, out=np.where(total > 0, np.inf, 0.0), where=errors > 0)
    votes = np.exp(-0.5 * (t / DOUBT) ** 2)
    logs = np.log([trial.penalty for trial in trials])
    return float(np.exp(votes @ logs / votes.sum()))
