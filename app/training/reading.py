"""What the course of the information in the weights says of a run, in words.

Only what runs support. Networks that were shown shuffled labels, and could but learn images by
heart, kept more of the information's height to the end than with the true labels on every task of
benchmarks/memorising.py, where these were trained to the end and kept less than HALF. But that line
tells nothing at a low rate: runs of the shipped recipe `full` with true labels, which were right on
most new pictures, all ended above it (benchmarks/forecast.py). Less than half says that a network
has settled, not on what: those that learn by heart come down as well, later.
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
            "it has not settled. Short runs and low rates end so whatever is learnt, as do "
            "some that learn images by heart: only held-out accuracy tells which."
        )
    return (
        f"The information in the weights rose until epoch {peak} and has fallen to {left:.0%} of "
        "its height since, as it does in networks that learn; some that learn by heart end so too."
    )
