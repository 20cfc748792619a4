"""Emoji in two drawing styles: the same questions, asked of the same glyphs drawn twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.reference import pictures
from app.reference.packages import Package, fetch
from app.reference.sets import LabelledSet, Picture, Pool, union

_NOTO = Package(
    "npm",
    "emoji-datasource-google",
    "16.0.0",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)
_TWEMOJI = Package(
    "npm",
    "emoji-datasource-twitter",
    "16.0.0",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
)
_TONES = {
    "1F3FB": "light",
    "1F3FC": "medium-light",
    "1F3FD": "medium",
    "1F3FE": "medium-dark",
    "1F3FF": "dark",
}

_ANIMALS = {f"animal-{kind}": kind for kind in ("mammal", "bird", "bug", "marine", "reptile")}
_PLANTS = {"plant-flower": "plant", "plant-other": "plant", "food-fruit": "plant"}
_MOODS = {
    "face-smiling": "glad",
    "face-affection": "glad",
    "face-tongue": "glad",
    "face-neutral-skeptical": "unmoved",
    "face-sleepy": "unmoved",
    "face-concerned": "worried",
    "face-negative": "worried",
    "face-unwell": "ill",
}
_FOODS = {f"food-{kind}": kind for kind in ("prepared", "vegetable", "fruit", "asian", "sweet")}
_TRANSPORT = {f"transport-{where}": where for where in ("ground", "air", "water")}
_OBJECTS = {name: name for name in ("clothing", "tool", "office", "household", "book-paper")}
_OBJECTS["musical-instrument"] = "instrument"
_HANDS = {
    "hand-fingers-open": "open",
    "hand-fingers-partial": "some fingers",
    "hand-single-finger": "one finger",
    "hand-fingers-closed": "closed",
}
_THINGS = ("Animals & Nature", "Food & Drink", "Objects", "Activities")


def sets(cache_dir: Path) -> Iterator[LabelledSet]:
    noto, twemoji = noto_glyphs(cache_dir), twemoji_glyphs(cache_dir)
    yield from _questions("noto", noto)
    yield from _questions("twemoji", twemoji)
    for what, kinds in {"animals": _ANIMALS, "faces": _MOODS}.items():
        both = union((noto, twemoji), ("emoji", "mixed-styles")).where(subcategory=kinds)
        name = f"emoji-drawing-style-of-{what}"
        yield both.ask(name, "style", question="drawing-style", per_class=50)


def noto_glyphs(cache_dir: Path) -> Pool:
    return _glyphs(_NOTO, "google", "noto", "Apache-2.0 (Noto Emoji)", cache_dir)


def twemoji_glyphs(cache_dir: Path) -> Pool:
    return _glyphs(_TWEMOJI, "twitter", "twemoji", "CC-BY-4.0 (Twemoji graphics)", cache_dir)


def _questions(style: str, glyphs: Pool) -> Iterator[LabelledSet]:
    every = glyphs.where(tone="none")

    def named(fact: str, names: dict[str, str]) -> Pool:
        return every.told(fact, lambda p: names.get(p.facts["subcategory"]))

    def ask(pool: Pool, name: str, fact: str, question: str, per_class: int = 30) -> LabelledSet:
        return pool.ask(f"emoji-{name}-{style}", fact, question=question, per_class=per_class)

    plain = replace(every, pictures=tuple(p for p in every.pictures if _is_shown(p)))
    yield ask(plain, "categories", "category", "what-it-shows", 15)
    yield ask(named("animal", _ANIMALS), "animals", "animal", "what-it-shows", 50)
    alive = named("life", dict.fromkeys(_ANIMALS, "animal") | _PLANTS)
    yield ask(alive, "animal-or-plant", "life", "what-it-shows", 80)
    yield ask(named("mood", _MOODS), "moods", "mood", "expression")
    yield ask(named("food", _FOODS | {"drink": "drink"}), "food", "food", "what-it-shows", 20)
    yield ask(named("way", _TRANSPORT), "transport", "way", "what-it-shows", 50)
    yield ask(named("object", _OBJECTS), "objects", "object", "what-it-shows", 20)

    hands = glyphs.where(subcategory=_HANDS, tone=_TONES.values())
    hands = hands.told("shape", lambda p: _HANDS[p.facts["subcategory"]])
    yield ask(hands, "hand-tones", "tone", "tone", 22)
    yield ask(hands, "hand-shapes", "shape", "shape", 26)

    things = plain.where(category=_THINGS, most=220)
    things = things.told("hue", lambda p: pictures.dominant_hue(p.data))
    things = things.extremes("lightness", pictures.lightness, "dark", "light")
    yield ask(things, "thing-kinds", "category", "what-it-shows", 30)
    yield ask(things, "thing-hues", "hue", "hue", 24)
    yield ask(things, "thing-lightness", "lightness", "lightness", 50)
    mosaics = things.mosaics("category", count=110, tile=48)
    yield mosaics.ask(
        f"emoji-mosaics-{style}",
        "category",
        question="what-it-shows",
        label_kind="multi_label",
    )


def _is_shown(picture: Picture) -> bool:
    return picture.facts["category"] not in {"Flags", "Component"}


def _glyphs(package: Package, maker: str, style: str, licence: str, cache_dir: Path) -> Pool:
    root = fetch(package, cache_dir) / "package"
    images = root / "img" / maker / "64"
    found = []
    for entry in json.loads((root / "emoji.json").read_text(encoding="utf-8")):
        for tone, variant in _variants(entry):
            # Without its own image a glyph stands in the package in another maker's drawing.
            if variant[f"has_img_{maker}"]:
                facts = {
                    "style": style,
                    "category": entry["category"],
                    "subcategory": entry["subcategory"],
                    "tone": tone,
                }
                data = (images / variant["image"]).read_bytes()
                found.append(Picture(variant["unified"], data, facts))
    return Pool(str(package), licence, ("emoji", style), tuple(found))


def _variants(entry: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "none", entry
    for code, variant in entry.get("skin_variations", {}).items():
        if code in _TONES:
            yield _TONES[code], variant
