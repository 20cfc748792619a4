"""Small labelled sets that the shipped outcomes know nothing of, each with pictures kept back.

No question is one of the grid's (benchmarks/grid/tasks.py), and no picture is one that a run of the
grid saw, byte for byte. Some sources are new altogether; of the others the grid saw other pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from app.reference import fashion, flags, glyphs, photographs, pictures
from app.reference.packages import Package, fetch
from app.reference.sets import LabelledSet, Picture, Pool, union
from benchmarks.forecasts import charts
from benchmarks.grid import tasks as grid
from benchmarks.quality import drawn, photographed, written
from benchmarks.quality.questions import TwinTask, halved, has_colour, hashed, with_subject

MOST_MORE = 120
LEAST_PER_CLASS = 8

_STAMPS = Package(
    "debian",
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
_STAMP_PIXELS = 300
"""The longer side at most: drawings come in up to a thousand pixels."""

_UNSEEN_CLOTHES = (3_000, 4_500)
"""Pictures of Fashion-MNIST from here on; the grid's lie before."""

_PRINTS = ("camera.png", "coins.png", "clock_motion.png", "page.png", "text.png")
"""Photographs of scikit-image that the grid has no patches of."""


@dataclass(frozen=True, slots=True)
class UnseenTask:
    """`labelled` is what a user would send; `more`, other pictures of the same kind, is looked at
    afterwards alone. `source`: how much of it the grid knows."""

    name: str
    source: str
    labelled: LabelledSet
    more: LabelledSet

    @property
    def n_images(self) -> int:
        return len(self.labelled.images)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({label for label, _ in self.labelled.images}))


NEW, OTHER_PICTURES = "new", "other pictures of a known source"


def unseen(cache_dir: Path) -> list[UnseenTask]:
    """In an order that is chance, and always the same. Raises Unavailable or Conflict where a
    package cannot be had."""
    used = {
        digest
        for task in grid.targets(cache_dir)
        for digest in (*task.learn.digests, *task.judge.digests)
    }
    told = [*_new(cache_dir), *_of_known_sources(cache_dir)]
    return sorted(
        (
            task_of(name, source, pool, fact, count, used)
            for name, source, pool, fact, count in told
        ),
        key=lambda task: hashed("order of unseen tasks", task.name),
    )


def task_of(
    name: str, source: str, pool: Pool, fact: str, per_class: int, used: Collection[str] = ()
) -> UnseenTask:
    """Of each class those whose keys hash lowest, as many as it is said or all but a third."""
    once = {
        picture.data: picture
        for picture in sorted(pool.pictures, key=lambda p: p.key)
        if hashlib.sha256(picture.data).hexdigest() not in used
    }
    by_class: dict[str, list[Picture]] = {}
    for picture in sorted(once.values(), key=lambda p: hashed(name, p.key)):
        if label := picture.facts.get(fact):
            by_class.setdefault(label, []).append(picture)
    kept = {label: found for label, found in by_class.items() if len(found) >= LEAST_PER_CLASS}
    most_more = MOST_MORE // len(kept)
    learn, more = [], []
    for label, found in sorted(kept.items()):
        count = min(per_class, 2 * len(found) // 3)
        learn += [(label, picture.data) for picture in found[:count]]
        more += [(label, picture.data) for picture in found[count : count + most_more]]
    labelled = LabelledSet(
        name=name,
        tags=pool.tags,
        source=pool.source,
        licence=pool.licence,
        label_kind="single_label",
        images=tuple(learn),
    )
    return UnseenTask(name, source, labelled, replace(labelled, images=tuple(more)))


Told = Iterator[tuple[str, str, Pool, str, int]]
"""Name, source, pool, the fact that is asked for, and images of a class to learn from."""


def _new(cache_dir: Path) -> Told:
    stamps = _stamps(cache_dir)
    yield "stamps-kinds", NEW, stamps, "kind", 12
    yield "stamps-animals", NEW, stamps, "animal", 20
    yield "charts-kinds", NEW, charts.kinds(), "kind", 10
    yield "charts-trends", NEW, charts.trends(), "trend", 30
    yield "faces", NEW, _faces(cache_dir), "shows", 32


def _of_known_sources(cache_dir: Path) -> Told:
    prints = photographed._structured(photographed._patches(cache_dir, _PRINTS))
    yield "prints", OTHER_PICTURES, prints, "photograph", 13
    clothes = union((fashion._clothes(cache_dir, s) for s in _UNSEEN_CLOTHES), ("fashion",))
    twins = {task.name: task for task in photographed._clothes_tasks(_halved(clothes, "kind"))}
    yield _whole(twins["fashion-uses"], 22)
    yield _whole(twins["fashion-trousers-or-dress"], 30)
    yield _whole(next(t for t in written.digit_tasks() if t.name == "digits-parity"), 34)
    glyphs_drawn, others = drawn._emoji(cache_dir)
    emoji = {task.name: task for task in drawn._emoji_tasks(glyphs_drawn, others)}
    for name, per_class in (("emoji-food", 24), ("emoji-moods", 32)):
        plain = emoji[name].ask(glyphs_drawn.where(tone="none"))
        yield name, OTHER_PICTURES, plain, emoji[name].fact, per_class
    noto = flags._emoji(glyphs.noto_glyphs(cache_dir), "noto")
    yield "flags-green", OTHER_PICTURES, has_colour("green")(noto), "has-green", 34
    outline, _ = drawn._icons(cache_dir)
    yield "icons-frames", OTHER_PICTURES, outline.where(frame=drawn._FRAMES), "frame", 22
    yield _whole(written._letters_of(cache_dir, "cyrillic"), 7)


def _whole(task: TwinTask, per_class: int) -> tuple[str, str, Pool, str, int]:
    """A question of the quality benchmark that the grid does not ask, of both halves together."""
    pool = union((task.ask(task.a), task.ask(task.b)), task.path[:2])
    return task.name, OTHER_PICTURES, pool, task.fact, per_class


def _stamps(cache_dir: Path) -> Pool:
    """Drawings and cut-out photographs for a children's paint program, by its own folders."""
    root = fetch(_STAMPS, cache_dir) / "usr" / "share" / "tuxpaint" / "stamps"
    kinds = {
        name: name
        for name in ("animals", "food", "plants", "seasonal", "town", "vehicles", "space")
    }
    animals = {"birds": "bird", "insects": "insect", "mammals": "mammal"}
    found = []
    for path in sorted(root.rglob("*.png")):
        if path.is_file() and not path.is_symlink():
            kind, *below = path.relative_to(root).parts[:-1]
            facts = {"kind": kinds.get(kind), "animal": animals.get((*below, "")[0])}
            known = {name: value for name, value in facts.items() if value}
            if known:
                found.append(Picture(str(path.relative_to(root)), _smaller(path), known))
    return Pool(str(_STAMPS), "GPL-2+ or public domain", ("stamps",), tuple(found))


def _smaller(path: Path) -> bytes:
    image = pictures.opened(path.read_bytes())
    image.thumbnail((_STAMP_PIXELS, _STAMP_PIXELS))
    return pictures.to_png(image)


def _faces(cache_dir: Path) -> Pool:
    """Faces in the wild and pieces of other photographs, 25 pixels wide; faces come first."""
    root = fetch(photographs._SCIKIT_IMAGE, cache_dir) / "skimage" / "data"
    images = np.load(root / "lfw_subset.npy")
    return Pool(
        f"lfw_subset of {photographs._SCIKIT_IMAGE}",
        "CC0-1.0 (as in skimage.data)",
        ("faces",),
        tuple(
            Picture(
                str(number),
                pictures.from_grey(255 * image),
                {"shows": "face" if 2 * number < len(images) else "no face"},
            )
            for number, image in enumerate(images)
        ),
    )


def _halved(pool: Pool, fact: str) -> Pool:
    return halved(with_subject(pool, lambda picture: picture.key), fact)
