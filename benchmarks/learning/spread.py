"""What runs with several seeds say together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def mean_and_error(values: Sequence[float] | npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and its standard error, which a single value has none of."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(np.mean(values)), float(error)
