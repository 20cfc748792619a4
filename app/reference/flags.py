"""Flags of countries: plain rectangles, and as two emoji styles draw them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from app.reference import glyphs, pictures
from app.reference.packages import Package, fetch
from app.reference.sets import LabelledSet, Picture, Pool

_FLAGS = Package(
    "npm",
    "svg-country-flags",
    "1.2.10",
    "2576650b4568c8ee1a2a6ddaa45c0246be16735f229bb40b1a0a6f40424e5213",
)
_COUNTRIES = Package(
    "npm",
    "flag-icons",
    "7.5.0",
    "c0b80bf0e08006a60f56621d6bc49f8c7131f4d1fef6737a165a673431f4b518",
)
_REGIONAL_INDICATOR_A = 0x1F1E6


def sets(cache_dir: Path) -> Iterator[LabelledSet]:
    continents = _continents(cache_dir)
    styles = {
        "flat": _flat(cache_dir),
        "twemoji": _emoji(glyphs.twemoji_glyphs(cache_dir), "twemoji"),
    }
    for style, pool in styles.items():
        countries = pool.told("continent", lambda p: continents.get(p.key))
        yield countries.ask(
            f"flags-continents-{style}", "continent", question="origin", per_class=24
        )
        seen = pool.where(most=140)
        yield seen.told("colours", lambda p: pictures.colours(p.data)).ask(
            f"flags-colours-{style}", "colours", question="hue", label_kind="multi_label"
        )
        yield seen.extremes("mirror", pictures.asymmetry, "symmetrical", "asymmetrical").ask(
            f"flags-symmetry-{style}", "mirror", question="symmetry", per_class=45
        )


def _continents(cache_dir: Path) -> dict[str, str]:
    listed = json.loads(
        (fetch(_COUNTRIES, cache_dir) / "package" / "country.json").read_text(encoding="utf-8")
    )
    found = {country["code"]: country.get("continent") for country in listed}
    return {code: name for code, name in found.items() if name and name != "Antarctica"}


def _flat(cache_dir: Path) -> Pool:
    root = fetch(_FLAGS, cache_dir) / "package" / "png250px"
    paths = (path for path in sorted(root.glob("*.png")) if len(path.stem) == len("fr"))
    return Pool(
        f"{_FLAGS}; labels: {_COUNTRIES}",
        "public domain (flags); MIT (continents)",
        ("flags", "flat"),
        tuple(Picture(path.stem.lower(), path.read_bytes(), {}) for path in paths),
    )


def _emoji(every: Pool, style: str) -> Pool:
    flags = every.where(subcategory="country-flag")
    return Pool(
        f"{flags.source}; labels: {_COUNTRIES}",
        f"{flags.licence}; MIT (continents)",
        ("flags", style),
        tuple(Picture(_country(p.key), p.data, {}) for p in flags.pictures),
    )


def _country(unified: str) -> str:
    return "".join(chr(int(c, 16) - _REGIONAL_INDICATOR_A + ord("a")) for c in unified.split("-"))
