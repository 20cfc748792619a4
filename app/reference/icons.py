"""Tabler's icons: line drawings, and the same signs filled."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from app.reference.packages import Package, fetch
from app.reference.sets import LabelledSet, Picture, Pool, union

_IMAGES = Package(
    "npm",
    "@tabler/icons-png",
    "3.48.0",
    "15f2cdccddd0b970be90e9b4a349263f3f403d31632df1e1a8bb502ee4ee11f1",
)
_NAMES = Package(
    "npm",
    "@tabler/icons",
    "3.48.0",
    "28447dcf6f0bb2b8d92c59a1b3d30900a180de2e97d7db4d267e6320dc68f449",
)
_CATEGORIES = ("Document", "Vehicles", "Food", "Media", "Devices", "Map", "Shapes", "Games")
_BADGES = ("plus", "minus", "x", "check", "off")
_DIRECTIONS = ("up", "down", "left", "right")


def sets(cache_dir: Path) -> Iterator[LabelledSet]:
    outline, filled = _icons(cache_dir, "outline"), _icons(cache_dir, "filled")
    for style, icons in {"outline": outline, "filled": filled}.items():
        plain = icons.where(category=_CATEGORIES)
        yield plain.ask(
            f"icons-categories-{style}", "category", question="what-it-shows", per_class=15
        )
        yield icons.ask(
            f"icons-directions-{style}", "direction", question="orientation", per_class=26
        )
        yield icons.ask(f"icons-frames-{style}", "frame", question="shape", per_class=13)
    yield outline.ask("icons-badges", "badge", question="shape", per_class=22)
    switched = outline.told("switch", _switch)
    yield switched.ask("icons-struck-out", "switch", question="shape", per_class=50)
    both = union((outline, filled), ("icons", "mixed-styles")).where(category=_CATEGORIES)
    yield both.ask("icons-drawing-style", "style", question="drawing-style", per_class=50)


def _icons(cache_dir: Path, style: str) -> Pool:
    root = fetch(_IMAGES, cache_dir) / "package" / "icons" / style
    names = json.loads(
        (fetch(_NAMES, cache_dir) / "package" / "icons.json").read_text(encoding="utf-8")
    )
    return Pool(
        f"{_IMAGES}; labels: {_NAMES}",
        "MIT (Tabler Icons)",
        ("icons", style),
        tuple(
            Picture(path.stem, path.read_bytes(), _facts(path.stem, style, names))
            for path in sorted(root.glob("*.png"))
            # Trademarks stay out, whatever the licence of their drawing.
            if path.stem in names and names[path.stem]["category"] != "Brand"
        ),
    )


def _facts(name: str, style: str, names: dict[str, dict[str, str]]) -> dict[str, str]:
    facts = {"style": style, "category": names[name]["category"]}
    stem, _, last = name.rpartition("-")
    if stem in names and last in _BADGES:
        facts["badge"] = last
    if re.match(r"(arrow|caret|chevron|square|circle|corner|player)\b", name):
        facts |= {"direction": last} if last in _DIRECTIONS else {}
    if match := re.fullmatch(r"(?:(.+)-)?(?:number-\d|letter-[a-z])", name):
        facts["frame"] = match[1] or "none"
    return facts


def _switch(icon: Picture) -> str | None:
    if icon.facts["category"] not in {"System", "Devices", "Media", "Communication", "Health"}:
        return None
    return "struck out" if icon.facts.get("badge") == "off" else "whole"
