"""What is asked, before sizes: twin tasks on two halves of a source, and pools with many questions.

The halves of a source are settled once for all of its tasks: every subject (a glyph, a character in
a typeface, a photograph's patch) lies in half A or in half B, whatever is asked of it. So no task's
half shares a subject with any other task's other half, and no rival is near for that reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from app.reference import pictures
from app.reference.sets import Picture, Pool

Half = Literal["A", "B"]
Kind = Literal["same-style", "other-style", "label", "changed"]
Path = tuple[str, str, str, str, str]

_THUMBNAIL = 16  # pixels, square
_THUMBNAIL_LEVELS = 32  # of 256 grey values, one


@dataclass(frozen=True, slots=True)
class TwinTask:
    """A question asked of two pools without a subject in common.

    `a`, `b`  the halves; where `kind` is `other-style` they are drawn in different styles
    `ask`     what tells the pictures of a half their `fact`, each half by itself
    `images`  what kind of pictures these are
    `path`    place in the taxonomy, from general to special (see `benchmarks.quality.tasks`)
    """

    name: str
    kind: Kind
    images: str
    question: str
    path: Path
    fact: str
    a: Pool
    b: Pool
    ask: Callable[[Pool], Pool]


@dataclass(frozen=True, slots=True)
class QuestionedPool:
    """One pool under several questions: a picture in use carries every one of the facts.

    `questions`  fact -> what it asks; random labels are asked besides
    """

    name: str
    path: Path
    pool: Pool
    questions: Mapping[str, str]


def unchanged(pool: Pool) -> Pool:
    return pool


def twin(
    name: str,
    first: Pool,
    second: Pool | None = None,
    *,
    images: str,
    question: str,
    path: Path,
    fact: str,
    ask: Callable[[Pool], Pool] = unchanged,
) -> TwinTask:
    """The task whose half A lies in `first` and half B in `second`, if that is another style."""
    return TwinTask(
        name=name,
        kind="other-style" if second else "same-style",
        images=images,
        question=question,
        path=path,
        fact=fact,
        a=first.where(half="A"),
        b=(second or first).where(half="B"),
        ask=ask,
    )


def hashed(seed: str, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\n{key}".encode()).digest()[:8])


def with_subject(pool: Pool, subject: Callable[[Picture], str]) -> Pool:
    return pool.told("subject", subject)


def distinct(pool: Pool) -> Pool:
    """Without pictures that look like an earlier one: some signs stand in a source twice."""
    seen: dict[bytes, str] = {}
    kept = []
    for picture in sorted(pool.pictures, key=lambda p: p.key):
        image = pictures.on_white(pictures.opened(picture.data)).resize((_THUMBNAIL, _THUMBNAIL))
        look = (np.asarray(image) // (256 // _THUMBNAIL_LEVELS)).tobytes()
        if seen.setdefault(look, picture.key) == picture.key:
            kept.append(picture)
    return replace(pool, pictures=tuple(kept))


def halved(pool: Pool, *facts: str) -> Pool:
    """With the fact `half`: within a combination of `facts`, subjects alternate by their hash."""
    strata: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for picture in pool.pictures:
        stratum = tuple(picture.facts.get(fact, "") for fact in facts)
        strata[stratum].add(picture.facts["subject"])
    half_of: dict[str, str] = {}
    for stratum in sorted(strata):
        first = hashed("first half", "/".join(stratum)) % 2
        ordered = sorted(strata[stratum] - half_of.keys(), key=lambda s: hashed("half", s))
        half_of |= {subject: "AB"[(i + first) % 2] for i, subject in enumerate(ordered)}
    return pool.told("half", lambda picture: half_of[picture.facts["subject"]])


def halved_like(pool: Pool, model: Pool) -> Pool:
    """Another drawing of the model's subjects, in the same halves; other subjects are left out."""
    half_of = {picture.facts["subject"]: picture.facts["half"] for picture in model.pictures}
    return pool.told("half", lambda p: half_of.get(p.facts["subject"])).where(half=("A", "B"))


def named(fact: str, source_fact: str, names: Mapping[str, str]) -> Callable[[Pool], Pool]:
    """Asks for a coarser fact: the name of each value of `source_fact`, nothing for the others."""
    return lambda pool: pool.told(fact, lambda p: names.get(p.facts.get(source_fact, "")))


def groups(**members: Iterable[str]) -> dict[str, str]:
    """value -> the group that it is listed under."""
    return {value: name for name, values in members.items() for value in values}


def lightness(pool: Pool) -> Pool:
    return pool.extremes("lightness", pictures.lightness, "dark", "light")


def detail(pool: Pool) -> Pool:
    return pool.extremes("detail", pictures.detail, "smooth", "detailed")


def symmetry(pool: Pool) -> Pool:
    return pool.extremes("symmetry", pictures.asymmetry, "symmetrical", "asymmetrical")


def hue(pool: Pool) -> Pool:
    return pool.told("hue", lambda p: pictures.dominant_hue(p.data))


def has_colour(colour: str) -> Callable[[Pool], Pool]:
    def told(picture: Picture) -> str:
        return "with" if colour in pictures.colours(picture.data).split("|") else "without"

    return lambda pool: pool.told(f"has-{colour}", told)


def turn(pool: Pool) -> Pool:
    return pool.varied("turn", pictures.QUARTER_TURNS)


def sharpness(pool: Pool) -> Pool:
    """Blurred by a thirty-sixth of the width, or redrawn unblurred by the same route."""

    def blurred(data: bytes) -> bytes:
        return pictures.blurred(data, pictures.opened(data).width / 36)

    return pool.varied("sharpness", {"sharp": _redrawn, "blurred": blurred})


def paper(pool: Pool) -> Pool:
    return pool.varied("paper", {"white": _redrawn, "black": pictures.inverted})


def lighter_half(pool: Pool) -> Pool:
    """`dark` or `light` for every picture of a half, by the median of that half."""
    light = {p.key: pictures.lightness(p.data) for p in pool.pictures}
    return _halves_told(pool, "lightness", light, "dark", "light")


def symmetrical_half(pool: Pool) -> Pool:
    sizes = {p.key: pictures.asymmetry(p.data) for p in pool.pictures}
    return _halves_told(pool, "symmetry", sizes, "symmetrical", "asymmetrical")


def _halves_told(pool: Pool, fact: str, measured: Mapping[str, float], low: str, high: str) -> Pool:
    middles = {
        half: float(np.median([measured[p.key] for p in pool.pictures if p.facts["half"] == half]))
        for half in {p.facts["half"] for p in pool.pictures}
    }
    return pool.told(fact, lambda p: high if measured[p.key] > middles[p.facts["half"]] else low)


def balanced(pool: Pool, facts: Sequence[str], count: int) -> tuple[Picture, ...]:
    """`count` pictures of which every beginning has each fact's values about equally often.

    The next picture is always one whose values are the rarest so far, the first fact before all
    others, and of several such the one with the lowest hash.
    """
    left = sorted(pool.pictures, key=lambda p: hashed("balance", p.key))
    values = [sorted({p.facts[fact] for p in left}) for fact in facts]
    codes = np.array(
        [[v.index(p.facts[f]) for f, v in zip(facts, values, strict=True)] for p in left]
    )
    counts = [np.zeros(len(v)) for v in values]
    free = np.ones(len(left), bool)
    chosen = []
    for _ in range(count):
        # A class of k lags behind by as much as it is short of its share of what is chosen.
        lag = [n[codes[:, i]] * len(n) for i, n in enumerate(counts)]
        cost = len(facts) * count * lag[0] + np.sum(lag[1:], axis=0)
        best = int(np.argmin(np.where(free, cost, np.inf)))
        free[best] = False
        chosen.append(left[best])
        for n, code in zip(counts, codes[best], strict=True):
            n[code] += 1
    return tuple(chosen)


def with_random(chosen: Sequence[Picture], classes: int) -> tuple[Picture, ...]:
    """With the fact `random`: each `classes` pictures in a row get a shuffle of as many labels."""
    told = []
    for start in range(0, len(chosen), classes):
        block = chosen[start : start + classes]
        ranks = sorted(range(len(block)), key=lambda i: hashed("random", block[i].key))
        labels = {i: f"group {rank}" for rank, i in enumerate(ranks)}
        told += [
            replace(picture, facts={**picture.facts, "random": labels[i]})
            for i, picture in enumerate(block)
        ]
    return tuple(told)


def with_all(pool: Pool, facts: Iterable[str]) -> Pool:
    """Only the pictures of which all of the facts are known."""
    facts = tuple(facts)
    kept = tuple(p for p in pool.pictures if all(fact in p.facts for fact in facts))
    return replace(pool, pictures=kept)


def counted(pool: Pool, fact: str) -> Counter[str]:
    return Counter(p.facts[fact] for p in pool.pictures if fact in p.facts)


def _redrawn(data: bytes) -> bytes:
    return pictures.turned(data, quarter_turns=0)
