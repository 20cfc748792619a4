"""Which split a file belongs to, and which of them is used."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from app.errors import InvalidRequest

ALL = "all"

_CALLED = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?")  # as the hub's libraries name them


def is_split(folder: str) -> bool:
    return folder.lower() in _CALLED


def split_of(name: str) -> str | None:
    """By the file's own name before that of its folders: train-00000-of-00002, images/val/1.png,
    instances_val2017."""
    path = PurePosixPath(name)
    stem = path.name.partition(".")[0]
    shard = _SHARD.fullmatch(stem)
    parts = [shard[1] if shard else stem, *reversed(path.parts[:-1])]
    for part in parts:
        for word in re.split("[^a-z]+", part.lower()):
            if word in _CALLED:
                return _CALLED[word]
    return shard[1] if shard else None


def of_split(names: Sequence[str], asked: str | None) -> tuple[list[str], str]:
    """Those of one split, and what to say of it: `train` where nothing is asked for.

    Raises InvalidRequest where the split is not there, or where none is asked for, there are
    several, and none is called train.
    """
    splits: defaultdict[str | None, list[str]] = defaultdict(list)
    for name in names:
        splits[split_of(name)].append(name)
    if asked == ALL or (asked is None and len(splits) == 1):
        return list(names), f", split {_said(splits)}" if None not in splits else ""
    wanted = _CALLED.get(asked.lower(), asked) if asked else "train"
    if wanted not in splits:
        options = " or ".join(f"--split {split}" for split in (*sorted(filter(None, splits)), ALL))
        raise InvalidRequest(
            "split-unknown",
            f"There is no split {wanted} among {', '.join(names[:3])}"
            f"{' and others' if len(names) > 3 else ''}.",
            f"Give {options}.",
        )
    others = sorted(split or "without a name" for split in splits if split != wanted)
    beside = f" (beside it: {', '.join(others)})" if others else ""
    return splits[wanted], f", split {wanted}{beside}"


def _said(splits: defaultdict[str | None, list[str]]) -> str:
    return ", ".join(sorted(filter(None, splits)))
