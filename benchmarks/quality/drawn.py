"""Drawn pictures: emoji and flags in several makers' styles, icons in outline and filled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from app.reference import flags, glyphs, icons
from app.reference.sets import Picture, Pool, union
from benchmarks.quality import questions
from benchmarks.quality.questions import QuestionedPool, TwinTask, groups, named, twin

_TONE_CODES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
_PEOPLE = ("role", "activity", "sport", "gesture", "fantasy")
_THINGS = ("Animals & Nature", "Food & Drink", "Objects", "Activities", "Travel & Places")
_SKY_AND_PLACES = ("building", "geographic", "map", "other", "religious")
_WARM = groups(warm=("red", "orange", "yellow"), cold=("green", "blue", "purple"))
_NO_FLAGS = (
    "Activities",
    "Animals & Nature",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)


def twin_tasks(cache_dir: Path) -> Iterator[TwinTask]:
    yield from _emoji_tasks(*_emoji(cache_dir))
    yield from _flag_tasks(*_flags(cache_dir))
    yield from _icon_tasks(*_icons(cache_dir))


def questioned_pools(cache_dir: Path) -> Iterator[QuestionedPool]:
    kinds = ("Animals & Nature", "Food & Drink", "Objects", "Travel & Places")
    mixed = _mixed(*_emoji(cache_dir)).where(tone="none", category=kinds)
    mixed = named("warmth", "hue", _WARM)(questions.hue(questions.lighter_half(mixed)))
    yield QuestionedPool(
        "emoji-things",
        ("drawn", "emoji", "several groups", "things", "all"),
        mixed,
        {
            "category": "what it shows",
            "style": "drawing style",
            "warmth": "hue",
            "lightness": "lightness",
        },
    )
    signs = _mixed(*_icons(cache_dir)).where(category=("Arrows", "Design", "Document", "Letters"))
    yield QuestionedPool(
        "icons",
        ("drawn", "icons", "several categories", "signs", "all"),
        questions.lighter_half(questions.turn(signs)),
        {
            "category": "what it shows",
            "style": "drawing style",
            "turn": "orientation",
            "lightness": "lightness",
        },
    )
    countries = _mixed(*_flags(cache_dir)).where(continent=("Africa", "Americas", "Asia", "Europe"))
    countries = questions.has_colour("green")(questions.symmetrical_half(countries))
    yield QuestionedPool(
        "flags",
        ("drawn", "flags", "countries", "all", "all"),
        countries,
        {
            "continent": "origin",
            "style": "drawing style",
            "has-green": "hue",
            "symmetry": "symmetry",
        },
    )


def _mixed(first: Pool, second: Pool) -> Pool:
    """Each subject once, in the style that its hash decides, if it exists in both."""
    both = {p.facts["subject"] for p in first.pictures} & {
        p.facts["subject"] for p in second.pictures
    }

    def part(pool: Pool, side: int) -> Pool:
        return replace(
            pool,
            pictures=tuple(
                p
                for p in pool.pictures
                if p.facts["subject"] in both
                and questions.hashed("style", p.facts["subject"]) % 2 == side
            ),
        )

    return union((part(first, 0), part(second, 1)), (first.tags[0], "mixed-styles"))


def _emoji(cache_dir: Path) -> tuple[Pool, Pool]:
    """The same glyphs by two makers; a glyph's skin tones are one subject."""
    first, second = (
        questions.with_subject(questions.distinct(pool.where(category=_NO_FLAGS)), _glyph)
        for pool in (glyphs.noto_glyphs(cache_dir), glyphs.twemoji_glyphs(cache_dir))
    )
    noto = questions.halved(first, "category", "subcategory")
    twemoji = questions.halved_like(second, noto)
    return noto, twemoji


def _glyph(picture: Picture) -> str:
    return "-".join(code for code in picture.key.split("-") if code not in _TONE_CODES)


def _gender(picture: Picture) -> str | None:
    codes = picture.key.split("-")
    if "2640" in codes or codes[0] == "1F469":
        return "woman"
    return "man" if "2642" in codes or codes[0] == "1F468" else None


def _emoji_tasks(noto: Pool, twemoji: Pool) -> Iterator[TwinTask]:
    plain, plain_tw = noto.where(tone="none"), twemoji.where(tone="none")
    people, people_tw = (
        pool.where(subcategory=[f"person-{what}" for what in _PEOPLE]) for pool in (noto, twemoji)
    )
    toned, toned_tw = (
        replace(pool, pictures=tuple(p for p in pool.pictures if p.facts["tone"] != "none"))
        for pool in (noto, twemoji)
    )
    hand = [f"hand-fingers-{kind}" for kind in ("open", "partial", "closed")]
    hand += ["hand-single-finger", "hand-prop", "hands", "body-parts"]

    yield twin(
        "emoji-categories",
        plain_tw,
        images="emoji",
        question="what it shows",
        path=("drawn", "emoji", "several groups", "all", "content"),
        fact="category",
    )
    yield twin(
        "emoji-animals",
        plain,
        plain_tw,
        images="emoji animals",
        question="what it shows",
        path=("drawn", "emoji", "Animals & Nature", "animal", "content"),
        fact="animal",
        ask=named(
            "animal",
            "subcategory",
            groups(
                mammal=["animal-mammal"],
                other=[f"animal-{k}" for k in ("bird", "bug", "marine", "reptile", "amphibian")],
            ),
        ),
    )
    yield twin(
        "emoji-animal-or-plant",
        plain,
        images="emoji animals and plants",
        question="what it shows",
        path=("drawn", "emoji", "Animals & Nature", "animal and plant", "content"),
        fact="life",
        ask=named(
            "life",
            "subcategory",
            groups(
                animal=[f"animal-{k}" for k in ("mammal", "bird", "bug", "marine", "reptile")],
                plant=["plant-flower", "plant-other", "food-fruit", "food-vegetable"],
            ),
        ),
    )
    yield twin(
        "emoji-food",
        plain,
        plain_tw,
        images="emoji food",
        question="what it shows",
        path=("drawn", "emoji", "Food & Drink", "food and drink", "content"),
        fact="food",
        ask=named(
            "food",
            "subcategory",
            groups(
                dish=["food-prepared", "food-asian"],
                produce=["food-fruit", "food-vegetable"],
                treat=["food-sweet", "drink", "dishware"],
            ),
        ),
    )
    yield twin(
        "emoji-moods",
        plain,
        plain_tw,
        images="emoji faces",
        question="expression",
        path=("drawn", "emoji", "Smileys & Emotion", "face", "content"),
        fact="mood",
        ask=named(
            "mood",
            "subcategory",
            groups(
                well=[
                    f"face-{k}"
                    for k in ("smiling", "affection", "tongue", "neutral-skeptical", "hand")
                ],
                unwell=[f"face-{k}" for k in ("concerned", "negative", "unwell", "sleepy")],
            ),
        ),
    )
    yield twin(
        "emoji-people-doing",
        people_tw,
        images="emoji people",
        question="what it shows",
        path=("drawn", "emoji", "People & Body", "person", "content"),
        fact="subcategory",
    )
    yield twin(
        "emoji-gender",
        people,
        people_tw,
        images="emoji people",
        question="gender",
        path=("drawn", "emoji", "People & Body", "person", "content"),
        fact="gender",
        ask=lambda pool: pool.told("gender", _gender),
    )
    yield twin(
        "emoji-people-tones",
        replace(people, pictures=tuple(p for p in people.pictures if p.facts["tone"] != "none")),
        images="emoji people",
        question="tone",
        path=("drawn", "emoji", "People & Body", "person", "appearance"),
        fact="tone",
    )
    yield twin(
        "emoji-hand-tones",
        toned.where(subcategory=hand),
        toned_tw.where(subcategory=hand),
        images="emoji hands",
        question="tone",
        path=("drawn", "emoji", "People & Body", "hand", "appearance"),
        fact="tone",
    )
    yield twin(
        "emoji-hand-shapes",
        noto.where(subcategory=hand),
        images="emoji hands",
        question="shape",
        path=("drawn", "emoji", "People & Body", "hand", "content"),
        fact="shape",
        ask=named(
            "shape",
            "subcategory",
            groups(
                open=["hand-fingers-open"],
                some=["hand-fingers-partial", "hand-single-finger"],
                closed=["hand-fingers-closed"],
            ),
        ),
    )
    yield twin(
        "emoji-human",
        plain_tw,
        images="emoji of humans",
        question="what it shows",
        path=("drawn", "emoji", "People & Body", "several subgroups", "content"),
        fact="human",
        ask=named(
            "human",
            "subcategory",
            dict.fromkeys(hand, "hand")
            | groups(
                person=[f"person-{what}" for what in _PEOPLE],
                face=[f"face-{k}" for k in ("smiling", "concerned", "neutral-skeptical", "unwell")],
            ),
        ),
    )
    yield twin(
        "emoji-travel",
        plain,
        plain_tw,
        images="emoji travel and places",
        question="what it shows",
        path=("drawn", "emoji", "Travel & Places", "several subgroups", "content"),
        fact="travel",
        ask=named(
            "travel",
            "subcategory",
            groups(
                vehicle=[f"transport-{k}" for k in ("ground", "air", "water")],
                place=[f"place-{k}" for k in _SKY_AND_PLACES],
                sky=["sky & weather"],
            ),
        ),
    )
    yield twin(
        "emoji-objects",
        plain_tw,
        images="emoji objects",
        question="what it shows",
        path=("drawn", "emoji", "Objects", "several subgroups", "content"),
        fact="object",
        ask=named(
            "object",
            "subcategory",
            groups(
                clothing=["clothing"],
                device=["light & video", "computer", "phone", "sound", "music"],
                paper=["book-paper", "writing", "mail", "office", "money"],
                tool=["tool", "household", "science", "medical"],
            ),
        ),
    )
    yield twin(
        "emoji-symbols",
        plain,
        plain_tw,
        images="emoji symbols",
        question="what it shows",
        path=("drawn", "emoji", "Symbols", "several subgroups", "content"),
        fact="symbol",
        ask=named(
            "symbol",
            "subcategory",
            groups(
                letters=["alphanum", "keycap"],
                arrows=["arrow", "av-symbol"],
                signs=["warning", "transport-sign", "other-symbol", "religion", "zodiac"],
                geometric=["geometric"],
            ),
        ),
    )
    things, things_tw = (pool.where(category=_THINGS) for pool in (plain, plain_tw))
    looks = ("drawn", "emoji", "several groups", "things", "appearance")
    yield twin(
        "emoji-thing-hues",
        things,
        things_tw,
        images="emoji things",
        question="hue",
        path=looks,
        fact="hue",
        ask=questions.hue,
    )
    yield twin(
        "emoji-thing-lightness",
        things,
        images="emoji things",
        question="lightness",
        path=looks,
        fact="lightness",
        ask=questions.lightness,
    )
    yield twin(
        "emoji-thing-styles",
        _mixed(things, things_tw),
        images="emoji things",
        question="drawing style",
        path=looks,
        fact="style",
    )
    yield twin(
        "emoji-people-turns",
        people_tw.where(tone="none"),
        images="emoji people",
        question="orientation",
        path=("drawn", "emoji", "People & Body", "person", "appearance"),
        fact="turn",
        ask=questions.turn,
    )
    yield twin(
        "emoji-object-detail",
        plain.where(category="Objects"),
        plain_tw.where(category="Objects"),
        images="emoji objects",
        question="detail",
        path=("drawn", "emoji", "Objects", "several subgroups", "appearance"),
        fact="detail",
        ask=questions.detail,
    )
    yield twin(
        "emoji-symbol-symmetry",
        plain.where(category="Symbols"),
        plain_tw.where(category="Symbols"),
        images="emoji symbols",
        question="symmetry",
        path=("drawn", "emoji", "Symbols", "several subgroups", "appearance"),
        fact="symmetry",
        ask=questions.symmetry,
    )
    yield twin(
        "emoji-food-sharpness",
        plain.where(category="Food & Drink"),
        plain_tw.where(category="Food & Drink"),
        images="emoji food",
        question="sharpness",
        path=("drawn", "emoji", "Food & Drink", "food and drink", "appearance"),
        fact="sharpness",
        ask=questions.sharpness,
    )
    yield twin(
        "emoji-nature-paper",
        plain.where(category="Animals & Nature"),
        images="emoji animals and plants",
        question="paper",
        path=("drawn", "emoji", "Animals & Nature", "animal and plant", "appearance"),
        fact="paper",
        ask=questions.paper,
    )


def _flags(cache_dir: Path) -> tuple[Pool, Pool]:
    """Countries' flags, flat and as Twemoji; territories that fly another's flag count once."""
    continents = flags._continents(cache_dir)
    joined = groups(Americas=["North America", "South America"])

    def continent(picture: Picture) -> str | None:
        found = continents.get(picture.key)
        return found and joined.get(found, found)

    def known(pool: Pool, style: str) -> Pool:
        pool = questions.distinct(pool).told("continent", continent).told("style", lambda _: style)
        return questions.with_subject(pool, lambda p: p.key)

    first = known(flags._flat(cache_dir), "flat")
    second = known(flags._emoji(glyphs.twemoji_glyphs(cache_dir), "twemoji"), "twemoji")
    flat = questions.halved(first, "continent")
    return flat, questions.halved_like(second, flat)


def _flag_tasks(flat: Pool, twemoji: Pool) -> Iterator[TwinTask]:
    flag_task = partial(twin, images="flags")
    content = ("drawn", "flags", "countries", "all", "content")
    looks = ("drawn", "flags", "countries", "all", "appearance")
    yield flag_task("flags-continents", flat, question="origin", path=content, fact="continent")
    yield flag_task(
        "flags-red",
        flat,
        question="has red",
        path=looks,
        fact="has-red",
        ask=questions.has_colour("red"),
    )
    yield flag_task(
        "flags-lightness",
        twemoji,
        question="lightness",
        path=looks,
        fact="lightness",
        ask=questions.lightness,
    )
    yield flag_task(
        "flags-turns", twemoji, question="orientation", path=looks, fact="turn", ask=questions.turn
    )
    yield flag_task(
        "flags-green",
        flat,
        twemoji,
        question="has green",
        path=looks,
        fact="has-green",
        ask=questions.has_colour("green"),
    )
    yield flag_task(
        "flags-blue",
        flat,
        twemoji,
        question="has blue",
        path=looks,
        fact="has-blue",
        ask=questions.has_colour("blue"),
    )
    yield flag_task(
        "flags-symmetry",
        flat,
        twemoji,
        question="symmetry",
        path=looks,
        fact="symmetry",
        ask=questions.symmetry,
    )
    yield flag_task(
        "flags-detail",
        flat,
        twemoji,
        question="detail",
        path=looks,
        fact="detail",
        ask=questions.detail,
    )


_BADGES = ("plus", "minus", "x", "check", "off")
_DIRECTIONS = ("up", "down", "left", "right")
_BASES = ("device", "file", "message", "currency", "map", "mood", "filter", "user", "clock")
_THEMES = {
    "daily": ("Food", "Vehicles", "Buildings", "Sport", "Health", "Mood", "Nature", "Weather"),
    "office": ("Text", "Media", "E-commerce", "Communication", "Math", "Currencies", "Database"),
    "tools": ("System", "Design", "Document", "Devices", "Map"),
    "signs": ("Letters", "Numbers", "Arrows", "Shapes"),
}
_FRAMES = ("circle", "square", "hexagon")


def _icons(cache_dir: Path) -> tuple[Pool, Pool]:
    """Outlines, and the filled drawings of some of them."""
    outline, filled = (
        questions.with_subject(questions.distinct(icons._icons(cache_dir, style)), lambda p: p.key)
        .told("frame", lambda p: _word(p, 0, _FRAMES))
        .told("badge", lambda p: _word(p, -1, _BADGES))
        .told("direction", lambda p: _word(p, -1, _DIRECTIONS))
        .told("base", lambda p: _word(p, 0, _BASES))
        for style in ("outline", "filled")
    )
    filled_keys = {p.key for p in filled.pictures}
    outline = outline.told("drawn", lambda p: "twice" if p.key in filled_keys else "once")
    outline = questions.halved(outline, "drawn", "category", "frame", "badge", "direction")
    return outline, questions.halved_like(filled, outline)


def _word(icon: Picture, place: int, words: tuple[str, ...]) -> str | None:
    """The first or last word of an icon's name, where the name has several and it is known."""
    parts = icon.key.split("-")
    return parts[place] if len(parts) > 1 and parts[place] in words else None


def _icon_tasks(outline: Pool, filled: Pool) -> Iterator[TwinTask]:
    for theme, categories in _THEMES.items():
        yield twin(
            f"icons-{theme}",
            outline.where(category=categories),
            filled.where(category=categories) if theme in {"tools", "signs"} else None,
            images=f"{theme} icons",
            question="what it shows",
            path=("drawn", "icons", "several categories", theme, "content"),
            fact="category",
        )
    for name, fact in (("icons-badges", "badge"), ("icons-bases", "base")):
        yield twin(
            name,
            outline,
            images=f"icons with {fact}s",
            question="what it shows",
            path=("drawn", "icons", "all categories", fact, "content"),
            fact=fact,
        )
    yield twin(
        "icons-directions",
        outline,
        images="icons with arrows",
        question="direction",
        path=("drawn", "icons", "Arrows", "direction", "appearance"),
        fact="direction",
    )
    yield twin(
        "icons-arrows",
        outline,
        images="icons",
        question="arrow or not",
        path=("drawn", "icons", "Arrows", "all", "content"),
        fact="arrow",
        ask=named(
            "arrow",
            "category",
            groups(arrow=["Arrows"], other=["Map", "Devices", "Media", "Charts"]),
        ),
    )
    yield twin(
        "icons-frames",
        outline,
        filled,
        images="icons in frames",
        question="shape",
        path=("drawn", "icons", "all categories", "frame", "content"),
        fact="frame",
    )
    looks = ("drawn", "icons", "all categories", "all", "appearance")
    yield twin(
        "icons-styles",
        _mixed(outline, filled),
        images="icons",
        question="drawing style",
        path=looks,
        fact="style",
    )
    some_outline, some_filled = outline.where(most=1200), filled
    for name, question, fact, ask in (
        ("icons-ink", "lightness", "lightness", questions.lightness),
        ("icons-turns", "orientation", "turn", questions.turn),
        ("icons-detail", "detail", "detail", questions.detail),
    ):
        yield twin(
            name,
            some_outline,
            some_filled,
            images="icons",
            question=question,
            path=looks,
            fact=fact,
            ask=ask,
        )
    for name, question, fact, ask in (
        ("icons-symmetry", "symmetry", "symmetry", questions.symmetry),
        ("icons-paper", "paper", "paper", questions.paper),
    ):
        yield twin(
            name, some_outline, images="icons", question=question, path=looks, fact=fact, ask=ask
        )
