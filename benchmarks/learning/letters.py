"""Small letters of European alphabets, most of them with an accent, set in open typefaces.

Half of the families are learnt from, the others judge. What tells å from ä and ă is a few pixels:
nothing of it is left in a blur, while the letter below can still be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from app.reference import packages, typefaces
from benchmarks.learning.pictures import Pictures, made_up_of
from benchmarks.quality.written import _FAMILIES_OF_A

SIZE = 32  # pixels, square
FONT_SIZES = (20, 21, 22)
SHIFTS = (-1, 0, 1)
SUBSETS = {
    "latin": ascii_lowercase + "ßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿ",
    "latin-ext": "āăąćĉċčďđēĕėęěĝğġģĥħĩīĭįĵķĺļľłńņňōŏőŕŗřśŝşšţťŧũūŭůűųŵŷźżž",
}
ALPHABET = "".join(SUBSETS.values())
WEIGHTS = range(100, 1000, 100)


def letters(cache_dir: Path, learnt: int, judged: int) -> Pictures:
    """At random of all weights and slants that the families have."""
    halves = []
    for is_a, most in ((True, learnt), (False, judged)):
        drawn = [
            of_family
            for face in typefaces._TYPEFACES
            if face.genre != "other scripts" and (face.family in _FAMILIES_OF_A) is is_a
            for of_family in _drawn(face, cache_dir)
        ]
        order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(0))[:most]
        if len(order) < most:
            raise ValueError(f"there are {len(drawn)} letters, not {most}")
        halves += [
            torch.from_numpy(np.stack([drawn[place][0] for place in order])),
            torch.tensor([drawn[place][1] for place in order]),
        ]
    return made_up_of(*halves)


def _drawn(
    face: typefaces._Typeface, cache_dir: Path
) -> Iterator[tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], int]]:
    """Pictures (S, S), black on white, and the letter's place in the alphabet."""
    files = packages.fetch(face.package, cache_dir) / "package" / "files"
    for (subset, characters), weight, slant in product(
        SUBSETS.items(), WEIGHTS, ("normal", "italic")
    ):
        path = files / f"{face.family}-{subset}-{weight}-{slant}.woff"
        if not path.exists():
            continue
        fonts = [ImageFont.truetype(path, size) for size in FONT_SIZES]
        missing = bytes(fonts[0].getmask("\uffff"))
        for character in characters:
            if bytes(fonts[0].getmask(character)) == missing:
                continue
            key = f"{face.family} {weight} {slant} {character}"
            size, right, down = hashlib.sha256(key.encode()).digest()[:3]
            canvas = Image.new("L", (SIZE, SIZE), 255)
            across, along = (SHIFTS[shift % len(SHIFTS)] for shift in (right, down))
            place = (SIZE // 2 + across, SIZE // 2 + along)
            ImageDraw.Draw(canvas).text(
                place, character, fill=0, font=fonts[size % len(fonts)], anchor="mm"
            )
            yield np.asarray(canvas), ALPHABET.index(character)
