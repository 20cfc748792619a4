"""A run's share of the work: `--shard I/N`."""

from __future__ import annotations

import argparse


def shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not 1 <= int(index) <= int(count):
        raise argparse.ArgumentTypeError(f"{text} is not one of 1/N to N/N")
    return int(index), int(count)
