"""The labelled sets of the quality benchmark: twins at three sizes, and pools under questions.

Twins. A task is one question on one kind of pictures, unique under its name. Its halves A and B
have no subject in common (glyph whatever its skin tone, icon, character in a family, flag, garment,
patch), and lie in the same style or, for `other-style`, in two: Noto and Twemoji, outline and
filled, other families of the same genre, other photographs. A class counts when both halves have
`REFERENCE_SIZE` images of it; at most `MOST_CLASSES` a task, chosen by hash. Every set is balanced:
exactly `size` images of each class, those whose keys hash lowest, so the smaller set of a half is a
part of the larger one. At the largest size a task exists where all of its classes have so many.

Label sensitivity. A half of a pool is a fixed set of images, the same for all questions on it, so
that nothing about the images tells one question's set from another's. They are chosen to have the
answers of every question about equally often (`questions.balanced`): `size` images for each class
of the question with most classes, more for the classes of the others.

Taxonomy. A path of five levels, settled with the questions before any distance was looked at:
medium (drawn, written, photographed), source, group, subgroup, aspect (does the label say what is
shown, or how it looks). Groups are those of the outside source: Unicode's emoji groups and
subgroups, Tabler's icon categories, the script and the typographic class of a typeface, clothing
groups of Fashion-MNIST, photographs by what took them. The tree distance of two tasks is the number
of levels up to their common ancestor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from app.embedding.archive import ArchiveLimits
from app.embedding.dataset import LabelledImages, read_labelled_images
from app.reference.sets import LabelledSet, Picture, Pool
from benchmarks.quality import drawn, photographed, written
from benchmarks.quality.questions import (
    Half,
    Kind,
    Path,
    QuestionedPool,
    TwinTask,
    balanced,
    counted,
    hashed,
    with_all,
    with_random,
)

HALVES: tuple[Half, Half] = ("A", "B")
SIZES = (10, 20, 50)
REFERENCE_SIZE = 20
LABEL_SIZES = (10, 20)
MOST_CLASSES = 10
MOST_LARGE_TASKS = 25
_MAX_IMAGE_PIXELS = 2**24


@dataclass(frozen=True, slots=True)
class QualitySet:
    """One half of a task at one size, before it is embedded.

    `task`      for twins the task's name, for `label` pool and question
    `pool`      what kind of images these are; for `label` the name of the questioned pool
    `subjects`  what is pictured, one key an image; no subject is in both halves
    """

    name: str
    task: str
    half: Half
    size: int
    kind: Kind
    pool: str
    question: str
    path: Path
    subjects: tuple[str, ...]
    images: LabelledSet

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({label for label, _ in self.images.images}))


def sets(cache_dir: FilePath) -> tuple[QualitySet, ...]:
    """All labelled sets, always the same and in the same order; takes a minute or two.

    Raises Unavailable or Conflict where a package cannot be had as it was pinned.
    """
    tasks = [
        task for source in (drawn, written, photographed) for task in source.twin_tasks(cache_dir)
    ]
    pools = [
        pool
        for source in (drawn, written, photographed)
        for pool in source.questioned_pools(cache_dir)
    ]
    return (*twin_sets(tasks), *label_sets(pools))


def few_sets() -> tuple[QualitySet, ...]:
    """The smallest twins and pool of what needs no package: scikit-learn's digits."""
    every = (*twin_sets(written.digit_tasks()), *label_sets([written.digit_pool()]))
    return tuple(s for s in every if s.size == min(SIZES))


def read(labelled: LabelledSet, input_size: int) -> LabelledImages:
    """The set as the service would read it from an upload."""
    images, _ = read_labelled_images(
        [labelled.archive()],
        size=input_size,
        label_kind=labelled.label_kind,
        limits=ArchiveLimits(),
        max_image_pixels=_MAX_IMAGE_PIXELS,
    )
    return images


def twin_sets(tasks: Iterable[TwinTask]) -> Iterator[QualitySet]:
    asked = [(task, task.ask(task.a), task.ask(task.b)) for task in tasks]
    made = {
        task.name: {size: list(_at_size(task, a, b, size)) for size in SIZES}
        for task, a, b in asked
    }
    able = [(task.name, task.path[1]) for task, _, _ in asked if made[task.name][SIZES[-1]]]
    large = spread(able, MOST_LARGE_TASKS, "large")
    for task, _, _ in asked:
        for size in SIZES:
            if size < SIZES[-1] or task.name in large:
                yield from made[task.name][size]


def _at_size(task: TwinTask, a: Pool, b: Pool, size: int) -> Iterator[QualitySet]:
    """The task's two sets, or none."""
    counts = [counted(_without_repeats(pool, task.fact), task.fact) for pool in (a, b)]
    known = [
        label
        for label in sorted(counts[0])
        if min(count[label] for count in counts) >= REFERENCE_SIZE
    ]
    classes = sorted(known, key=lambda label: hashed(f"class of {task.name}", label))
    classes = sorted(classes[:MOST_CLASSES])
    if len(classes) < 2 or min(count[c] for count in counts for c in classes) < size:
        return
    for half, pool in zip(HALVES, (a, b), strict=True):
        yield _quality_set(task, half, pool, classes, size)


def _quality_set(
    task: TwinTask, half: Half, pool: Pool, classes: Sequence[str], size: int
) -> QualitySet:
    once = _without_repeats(pool, task.fact)
    chosen = [
        picture
        for label in classes
        for picture in sorted(
            (p for p in once.pictures if p.facts.get(task.fact) == label),
            key=lambda p: hashed(task.fact, p.key),
        )[:size]
    ]
    name = f"{task.name}-{half}-{size}"
    return QualitySet(
        name=name,
        task=task.name,
        half=half,
        size=size,
        kind=task.kind,
        pool=task.images,
        question=task.question,
        path=task.path,
        subjects=tuple(p.facts["subject"] for p in chosen),
        images=_labelled(name, pool, chosen, task.fact),
    )


def _without_repeats(pool: Pool, fact: str) -> Pool:
    """Each file once, as reading the set would have it."""
    known = (p for p in sorted(pool.pictures, key=lambda p: p.key) if fact in p.facts)
    once = {picture.data: picture for picture in known}
    return replace(pool, pictures=tuple(once.values()))


def spread(tasks: Iterable[tuple[str, str]], count: int, seed: str) -> set[str]:
    """At most `count` of the names in (name, source), one of each source in turn, by hash."""
    by_source: dict[str, list[str]] = {}
    for name, source in sorted(tasks, key=lambda task: hashed(seed, task[0])):
        by_source.setdefault(source, []).append(name)
    turns = [
        (turn, source, name)
        for source, names in by_source.items()
        for turn, name in enumerate(names)
    ]
    return {name for _, _, name in sorted(turns)[:count]}


def label_sets(pools: Iterable[QuestionedPool]) -> Iterator[QualitySet]:
    for questioned in pools:
        facts = tuple(questioned.questions)
        pool = with_all(_without_repeats(questioned.pool, facts[0]), facts)
        for half in HALVES:
            yield from _questions_on(questioned, half, pool.where(half=half))


def _questions_on(questioned: QuestionedPool, half: Half, pool: Pool) -> Iterator[QualitySet]:
    facts = tuple(questioned.questions)
    most_classes = max(len(counted(pool, fact)) for fact in facts)
    ordered = balanced(pool, facts, most_classes * max(LABEL_SIZES))
    ordered = with_random(ordered, most_classes)
    for size in LABEL_SIZES:
        chosen = ordered[: most_classes * size]
        for fact, question in {**questioned.questions, "random": "random labels"}.items():
            name = f"label-{questioned.name}-{fact}-{half}-{size}"
            yield QualitySet(
                name=name,
                task=f"{questioned.name}-{fact}",
                half=half,
                size=size,
                kind="label",
                pool=questioned.name,
                question=question,
                path=questioned.path,
                subjects=tuple(p.facts["subject"] for p in chosen),
                images=_labelled(name, pool, chosen, fact),
            )


def _labelled(name: str, pool: Pool, chosen: Iterable[Picture], fact: str) -> LabelledSet:
    return LabelledSet(
        name=name,
        tags=pool.tags,
        source=pool.source,
        licence=pool.licence,
        label_kind="single_label",
        images=tuple((p.facts[fact], p.data) for p in chosen),
    )
