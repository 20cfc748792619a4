"""Written pictures: letters and numerals of open typefaces in many scripts, handwritten digits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from string import digits as numerals

from app.reference import digits, packages, typefaces
from app.reference.sets import Picture, Pool, union
from benchmarks.quality import questions
from benchmarks.quality.questions import QuestionedPool, TwinTask, groups, twin

_GENRES = ("serif", "sans", "mono", "handwriting")
_WEIGHTS = (400, 500, 600, 700)
_FAMILIES_OF_A = (
    *("lora", "noto-serif", "playfair-display"),
    *("inter", "noto-sans", "work-sans"),
    *("jetbrains-mono", "roboto-mono", "source-code-pro"),
    *("caveat", "great-vibes"),
)
"""Other-style twins: half A in these families, half B in the other ones of the genre."""


def _ten(letters: str) -> str:
    """Ten letters that their hash decides: at most so many classes are asked for."""
    return "".join(sorted(sorted(letters, key=lambda c: questions.hashed("ten", c))[:10]))


_LOWER, _UPPER = _ten(ascii_lowercase), _ten(ascii_uppercase)
_NAMED_IN_OTHER_STYLE = {"sans": _LOWER + numerals, "serif": _UPPER}
_LOOPS = groups(loop="04689", open="12357")


def twin_tasks(cache_dir: Path) -> Iterator[TwinTask]:
    yield from _latin_tasks(_latin(cache_dir))
    yield from _script_tasks(cache_dir)
    yield from digit_tasks()


def questioned_pools(cache_dir: Path) -> Iterator[QuestionedPool]:
    letters = union(
        (_latin(cache_dir)[genre] for genre in ("serif", "sans")), ("typefaces", "mixed-genres")
    ).where(letter=("a", "e", "g", "r"), grade=("400", "700"))
    yield QuestionedPool(
        "letters",
        ("written", "typefaces", "latin", "several classes", "all"),
        letters,
        {
            "letter": "which letter",
            "genre": "drawing style",
            "weight": "weight",
            "slant": "slant",
        },
    )
    yield digit_pool()


def digit_pool() -> QuestionedPool:
    drawn = questions.paper(questions.turn(_digits().where(digit=("2", "3", "5", "7"))))
    return QuestionedPool(
        "digits",
        ("written", "digits", "arabic numerals", "handwriting", "all"),
        questions.lighter_half(drawn),
        {
            "digit": "which digit",
            "turn": "orientation",
            "paper": "paper",
            "lightness": "lightness",
        },
    )


def _family(picture: Picture) -> str:
    return picture.key.split()[0]


def _set(face: typefaces._Typeface, cache_dir: Path, script: str, characters: str) -> Pool:
    """Every character in every medium weight that the family has of that script."""
    files = _files(face, cache_dir)
    weights = tuple(
        w for w in _WEIGHTS if (files / f"{face.family}-{script}-{w}-normal.woff").exists()
    )
    pool = typefaces._set(replace(face, weights=weights), cache_dir, script, characters)
    pool = pool.told("family", _family).told("grade", lambda p: p.key.split()[1])
    return questions.with_subject(pool, lambda p: f"{_family(p)} {_character(p)}")


def _latin(cache_dir: Path) -> dict[str, Pool]:
    """genre -> letters and numerals; a character in a family is one subject, whatever its weight.

    Characters that an other-style twin names one by one are halved by family, all others by hash.
    """
    pools = {}
    for genre in _GENRES:
        pool = union(
            (
                _set(face, cache_dir, "latin", ascii_lowercase + ascii_uppercase + numerals)
                for face in typefaces._TYPEFACES
                if face.genre == genre
            ),
            ("typefaces", genre),
        )
        by_family = _NAMED_IN_OTHER_STYLE.get(genre, "")
        whole = tuple(p for p in pool.pictures if _character(p) in by_family)
        spread = tuple(p for p in pool.pictures if _character(p) not in by_family)
        pools[genre] = union(
            (
                replace(pool, pictures=whole).told("half", _family_half),
                questions.halved(replace(pool, pictures=spread), "letter", "capital", "digit"),
            ),
            pool.tags,
        )
    return pools


def _family_half(picture: Picture) -> str:
    return "A" if _family(picture) in _FAMILIES_OF_A else "B"


def _families(pool: Pool, half: str) -> Pool:
    """That half of the pool, in the families of the half alone."""
    kept = tuple(p for p in pool.pictures if _family_half(p) == p.facts["half"] == half)
    return replace(pool, pictures=kept)


def _latin_tasks(latin: dict[str, Pool]) -> Iterator[TwinTask]:
    def ask(
        name: str,
        pool: Pool,
        question: str,
        fact: str,
        aspect: str,
        *,
        genre: str,
        other: bool = False,
    ) -> TwinTask:
        first, second = (_families(pool, "A"), _families(pool, "B")) if other else (pool, None)
        return twin(
            f"{name}-{genre}",
            first,
            second,
            images=f"{genre} letters" if fact != "digit" else f"{genre} numerals",
            question=question,
            path=("written", "typefaces", "latin", genre, aspect),
            fact=fact,
        )

    for genre, other in (("serif", False), ("sans", True)):
        lower = latin[genre].where(letter=tuple(_LOWER))
        yield ask("letters", lower, "which letter", "letter", "content", genre=genre, other=other)
    for genre, other in (("serif", True), ("sans", False)):
        upper = latin[genre].where(capital=tuple(_UPPER))
        yield ask("capitals", upper, "which letter", "capital", "content", genre=genre, other=other)
    for genre, other in (("serif", False), ("sans", True)):
        pool = latin[genre]
        yield ask("numerals", pool, "which digit", "digit", "content", genre=genre, other=other)
    for genre, other in (("serif", True), ("sans", False), ("mono", True), ("handwriting", False)):
        pool = latin[genre]
        yield ask("case", pool, "case", "case", "content", genre=genre, other=other)
    for genre, other in (("serif", False), ("sans", True)):
        pool = latin[genre].where(case=("lower", "upper"), grade=("400", "700"))
        yield ask("weight", pool, "weight", "weight", "appearance", genre=genre, other=other)
    for genre, other in (("serif", True), ("sans", False)):
        pool = latin[genre].where(case=("lower", "upper"))
        yield ask("slant", pool, "slant", "slant", "appearance", genre=genre, other=other)
    for genre in ("serif", "sans"):
        pool = latin[genre].where(case="lower")
        yield ask("family", pool, "which typeface", "family", "appearance", genre=genre)
    several = ("written", "typefaces", "latin", "several classes", "appearance")
    every = union((latin[genre].where(case="lower") for genre in _GENRES), ("typefaces",))
    yield twin(
        "letter-genres",
        _families(every, "A"),
        _families(every, "B"),
        images="letters",
        question="drawing style",
        path=several,
        fact="genre",
    )
    yield twin(
        "numeral-turns",
        *(_families(latin["mono"].where(digit=("1", "2", "3", "4", "5", "7")), h) for h in "AB"),
        images="mono numerals",
        question="orientation",
        path=("written", "typefaces", "latin", "mono", "appearance"),
        fact="turn",
        ask=questions.turn,
    )


def _script_tasks(cache_dir: Path) -> Iterator[TwinTask]:
    faces = {face.family: face for face in typefaces._TYPEFACES}
    drawn = {
        genre: {
            script: _set(faces[family], cache_dir, script, typefaces._SCRIPTS[script])
            for script, family in families.items()
        }
        for genre, families in typefaces._SCRIPT_FAMILIES.items()
    }
    characters = {
        genre: questions.with_subject(union(pools.values(), ("typefaces", genre)), _character)
        for genre, pools in drawn.items()
    }
    sans = questions.halved(characters["sans"], "script")
    serif = questions.halved_like(characters["serif"], sans)
    scripts = partial(twin, images="letters of many scripts", question="writing system")
    yield scripts(
        "scripts",
        sans.where(script=("hebrew", "georgian", "armenian", "devanagari")),
        path=("written", "typefaces", "several scripts", "sans", "content"),
        fact="script",
    )
    yield scripts(
        "scripts-in-serif",
        sans.where(script=("greek", "cyrillic", "thai")),
        serif.where(script=("greek", "cyrillic", "thai")),
        path=("written", "typefaces", "several scripts", "several classes", "content"),
        fact="script",
    )
    yield twin(
        "thai-genres",
        union(
            (
                sans.where(script="thai").told("genre", lambda _: "sans"),
                serif.where(script="thai").told("genre", lambda _: "serif"),
            ),
            ("typefaces", "thai"),
        ),
        images="Thai letters",
        question="drawing style",
        path=("written", "typefaces", "thai", "several classes", "appearance"),
        fact="genre",
    )
    yield _letters_of(cache_dir, "cyrillic")


def _character(picture: Picture) -> str:
    return picture.key.split()[-1]


def _letters_of(cache_dir: Path, script: str) -> TwinTask:
    """Which of ten letters of another script, in other families for half B."""
    wanted = _ten(typefaces._SCRIPTS[script])
    faces = [
        face
        for face in typefaces._TYPEFACES
        if face.genre in {"sans", "mono"}
        and any(_files(face, cache_dir).glob(f"{face.family}-{script}-*.woff"))
    ]
    pool = union((_set(face, cache_dir, script, wanted) for face in faces), ("typefaces", script))
    pool = pool.told("letter", _character).told("half", _family_half)
    return twin(
        f"letters-{script}",
        _families(pool, "A"),
        _families(pool, "B"),
        images=f"{script} letters",
        question="which letter",
        path=("written", "typefaces", script, "several classes", "content"),
        fact="letter",
    )


def _files(face: typefaces._Typeface, cache_dir: Path) -> Path:
    return packages.fetch(face.package, cache_dir) / "package" / "files"


def _digits() -> Pool:
    pool = questions.with_subject(questions.distinct(digits.digits()), lambda p: p.key)
    return questions.halved(pool, "digit")


def digit_tasks() -> Iterator[TwinTask]:
    pool = _digits()
    content = ("written", "digits", "arabic numerals", "handwriting", "content")
    looks = ("written", "digits", "arabic numerals", "handwriting", "appearance")
    digit = partial(twin, images="handwritten digits")
    yield digit("digits", pool, question="which digit", path=content, fact="digit")
    yield digit("digits-parity", pool, question="parity", path=content, fact="parity")
    yield digit(
        "digits-loops",
        pool,
        question="has a loop",
        path=content,
        fact="loop",
        ask=questions.named("loop", "digit", _LOOPS),
    )
    yield digit(
        "digits-3-or-8",
        pool.where(digit=("3", "8")),
        question="3 or 8",
        path=content,
        fact="digit",
    )
    yield digit(
        "digits-turns",
        pool.where(digit=("2", "3", "4", "5", "7")),
        question="orientation",
        path=looks,
        fact="turn",
        ask=questions.turn,
    )
    yield digit(
        "digits-ink",
        pool,
        question="lightness",
        path=looks,
        fact="lightness",
        ask=questions.lightness,
    )
