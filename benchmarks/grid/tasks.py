"""The grid's tasks: small labelled sets to learn, and pictures with other subjects to be judged on.

They are same-style twin tasks of the quality benchmark, named before any of them was trained on. A
task is learnt from half A of its source and judged on half B, so that no subject (a glyph, an icon,
a character in a family, a patch) is in both. The experts are trained on half A too, of tasks of
their own: since the halves of a source are the same for all tasks, no expert saw a test picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.embedding.image import decode_image
from app.reference.sets import LabelledSet, Picture, Pool
from benchmarks.quality import drawn, photographed, written
from benchmarks.quality.questions import TwinTask, counted, hashed

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

INPUT_SIZE = 64  # pixels, square: the grid must fit some hours of two cores
MOST_CLASSES = 10
MOST_TO_LEARN = 120
MOST_TO_JUDGE = 300
MOST_OF_A_SOURCE = 600
VALIDATION_TURN = 5  # of a class's images, every fifth is held out to stop early

TARGETS = (
    *("emoji-categories", "emoji-animal-or-plant", "emoji-people-doing", "emoji-people-tones"),
    *("emoji-human", "emoji-objects", "emoji-thing-styles"),
    *("flags-continents", "flags-red", "flags-turns"),
    *("icons-daily", "icons-office", "icons-badges", "icons-directions", "icons-styles"),
    *("letters-serif", "capitals-sans", "case-handwriting", "weight-serif", "family-sans"),
    *("scripts", "thai-genres"),
    *("digits", "digits-turns"),
    *("fashion-kinds", "fashion-footwear", "fashion-tops", "fashion-turn"),
    *("scenes", "textures", "instruments"),
)
SOURCES = (
    *("emoji-categories", "emoji-people-doing", "icons-office", "scripts"),
    *("letters-serif", "family-sans", "digits", "fashion-kinds", "instruments"),
)
"""Tasks that experts are trained on; an expert does not run on its own."""


@dataclass(frozen=True)
class Images:
    """Pictures with their class numbers, decoded when they are first looked at."""

    files: tuple[bytes, ...]
    labels: Labels

    @cached_property
    def digests(self) -> tuple[str, ...]:
        return tuple(hashlib.sha256(data).hexdigest() for data in self.files)

    @cached_property
    def pixels(self) -> Pixels:
        """(N, INPUT_SIZE, INPUT_SIZE, 3) RGB."""
        return np.stack([decode_image(data, INPUT_SIZE, 2**24) for data in self.files])

    def take(self, rows: Sequence[int]) -> Images:
        return Images(tuple(self.files[i] for i in rows), self.labels[rows])


@dataclass(frozen=True)
class GridTask:
    """`learn` is what a user would send, class by class in hash order; `judge` comes afterwards.

    `group`  the collection that the pictures come from
    """

    name: str
    group: str
    classes: tuple[str, ...]
    learn: Images
    judge: Images
    labelled: LabelledSet

    @cached_property
    def parts(self) -> tuple[Images, Images]:
        """`learn` as training and validation images."""
        rank = np.zeros(len(self.learn.labels), np.int64)
        for number in range(len(self.classes)):
            mine = self.learn.labels == number
            rank[mine] = np.arange(mine.sum())
        held_out = rank % VALIDATION_TURN == VALIDATION_TURN - 1
        training, validation = (np.flatnonzero(rows).tolist() for rows in (~held_out, held_out))
        return self.learn.take(training), self.learn.take(validation)


def targets(cache_dir: Path) -> Iterator[GridTask]:
    return _tasks(cache_dir, TARGETS, MOST_TO_LEARN)


def sources(cache_dir: Path) -> Iterator[GridTask]:
    return _tasks(cache_dir, SOURCES, MOST_OF_A_SOURCE)


def _tasks(cache_dir: Path, names: Sequence[str], most: int) -> Iterator[GridTask]:
    """In the order named. Raises Unavailable or Conflict where a package cannot be had."""
    known = {
        task.name: task
        for source in (drawn, written, photographed)
        for task in source.twin_tasks(cache_dir)
    }
    return (grid_task(known[name], most) for name in names)


def grid_task(task: TwinTask, most: int) -> GridTask:
    """The task with at most `most` images to learn from, no class with more than its share."""
    learn, judge = task.ask(task.a), task.ask(task.b)
    classes = _classes(task, learn, judge)
    mine = [_chosen(learn, task.fact, label, most // len(classes)) for label in classes]
    theirs = [_chosen(judge, task.fact, label, MOST_TO_JUDGE // len(classes)) for label in classes]
    labelled = LabelledSet(
        name=task.name,
        tags=task.path[:2],
        source=learn.source,
        licence=learn.licence,
        label_kind="single_label",
        images=tuple(
            (label, picture.data)
            for label, pictures in zip(classes, mine, strict=True)
            for picture in pictures
        ),
    )
    return GridTask(task.name, task.path[1], classes, _images(mine), _images(theirs), labelled)


def _classes(task: TwinTask, learn: Pool, judge: Pool) -> tuple[str, ...]:
    """Those with two turns of images in both halves; at most MOST_CLASSES, chosen by hash."""
    counts = [counted(pool, task.fact) for pool in (learn, judge)]
    able = [
        label for label in counts[0] if min(count[label] for count in counts) >= 2 * VALIDATION_TURN
    ]
    able.sort(key=lambda label: hashed(f"class of {task.name}", label))
    return tuple(sorted(able[:MOST_CLASSES]))


def _chosen(pool: Pool, fact: str, label: str, most: int) -> list[Picture]:
    """At most so many pictures of the class, those whose keys hash lowest, each file once."""
    once = {
        picture.data: picture
        for picture in sorted(pool.pictures, key=lambda p: p.key)
        if picture.facts.get(fact) == label
    }
    return sorted(once.values(), key=lambda p: hashed(fact, p.key))[:most]


def _images(by_class: Sequence[Sequence[Picture]]) -> Images:
    flat = [picture for pictures in by_class for picture in pictures]
    labels = [number for number, pictures in enumerate(by_class) for _ in pictures]
    return Images(tuple(picture.data for picture in flat), np.array(labels, np.int64))
