"""The weighted mean over a sample of images, and how far both kinds of chance may have moved it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.embedding.regression import Labels

Array = npt.NDArray[np.float64]


class SampleMean:
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
