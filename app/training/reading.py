"""What the course of the information in the weights says of a run, in words.

Only what benchmarks/memorising.py supports: networks that were shown shuffled labels, and could but
learn images by heart, kept more of the information's height to the end than with the true labels on
every task; more than HALF of it none kept that had true labels and was trained to the end. A short
run at a low rate ends near its height too: it is not over. Less says little: those that learn by
heart come down as well, later.
"""

from __future__ import annotations

from collections.abc import Mapping

HALF = 0.5
LEAST_TRACES = 5
"""Fewer show no course."""


def said_of(traces: Mapping[int, float]) -> str | None:
    """Of the whole network's training; `traces` by epoch. None where they are too few."""
    if len(traces) < LEAST_TRACES:
        return None
    peak = max(traces, key=traces.__getitem__)
    left = traces[max(traces)] / traces[peak] if traces[peak] > 0 else 0.0
    if left > HALF:
        return (
            f"The information in the weights is still at {left:.0%} of its height (epoch {peak}): "
            "training is not over, or images are learnt by heart. Look at labels and held-out "
            "accuracy before training on."
        )
    return (
        f"The information in the weights rose until epoch {peak} and has fallen to {left:.0%} of "
        "its height since, as it does in networks that learn; some that learn by heart end so too."
    )
