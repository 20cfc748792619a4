"""Letters and digits set in open typefaces: serif, sans, monospaced, handwriting; other scripts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

from PIL import Image, ImageDraw, ImageFont

from app.reference import pictures
from app.reference.packages import Package, fetch
from app.reference.sets import LabelledSet, Picture, Pool, union

_VERSION = "5.3.0"
_LICENCE = "OFL-1.1"
_CANVAS = 80  # pixels, square
_SIZES = (44, 48, 52, 56)  # pixels
_SHIFTS = range(-6, 7, 3)  # pixels


@dataclass(frozen=True, slots=True)
class _Typeface:
    family: str
    genre: str
    sha256: str
    weights: tuple[int, ...] = (400, 700)
    slants: tuple[str, ...] = ("normal",)

    @property
    def package(self) -> Package:
        return Package("npm", f"@fontsource/{self.family}", _VERSION, self.sha256)


_UPRIGHT_AND_ITALIC = ("normal", "italic")
_TYPEFACES = (
    _Typeface(
        "lora",
        "serif",
        "3f2e66b0934b8652bb1a37645a9fc3e77e83b5841a09e97174e7bb11e11063c9",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "merriweather",
        "serif",
        "348f20a775e50a50b508ab6660771df6905ab2ea695c6c2a8df889c5cceec42f",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "pt-serif",
        "serif",
        "656a3f5ab62846715a6e933a1a850514c6b7aed018de6b0443f1a44ee77d7fd5",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "noto-serif",
        "serif",
        "846d219c2c9c668ebe2b5ca0e76c403a35f847d83c4c441c107f9bdc152830df",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "playfair-display",
        "serif",
        "564e61951ecc3e962793cd50395f718cda6350cb934f9000dbe0139c768dc023",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "eb-garamond",
        "serif",
        "2e61af0740104953d4fc5cb52a8c6de257ae6d83a4a89e0fd4be2f6132fd40d9",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "inter",
        "sans",
        "02034af8d41dcc67ac8eab88f642e129bb8a2e8922abf30229c32725f54d8fd6",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "open-sans",
        "sans",
        "95e6dd90f5860d0de22f791b6d802598743762c62e4894bfa26f80b1ea0cf3f5",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "noto-sans",
        "sans",
        "f62f8ed40e378f15134e32bed2fd5718d81e9ec7a5603d1022d7b385e2297abc",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "roboto",
        "sans",
        "77620f437249772e381698224ea1bddd01c985ecd60267a63ddc96b9eb9348f7",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "work-sans",
        "sans",
        "b1b1c5a7d7ae2a721e0a9235bfa294281d161a20934e9ede01e0aec2bdb2373a",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "lato",
        "sans",
        "50db251f16e9a6c35fe0177b4692b7ec78478b9734c9272d980a75343638aa5c",
        slants=_UPRIGHT_AND_ITALIC,
    ),
    _Typeface(
        "jetbrains-mono", "mono", "1bbea47d1387406da5b6ccc4184cc61eae6851cc0db5c1d9bbd088ea9daa0b4a"
    ),
    _Typeface(
        "fira-mono", "mono", "f33fe653fa622c4fc5b179c6649e37c6f44ff46067377de9a948cdc486863ba3"
    ),
    _Typeface(
        "roboto-mono", "mono", "9825f59e72dab7ef3f96e6af79407d97844ba50927ae57f2c9c60199daa9ef62"
    ),
    _Typeface(
        "ibm-plex-mono", "mono", "60d3c0cfa549cb06fcb8867ee83f994d78e212abfac3bef3275436acb5c4d029"
    ),
    _Typeface(
        "source-code-pro",
        "mono",
        "2cf1e4c495edacec6b2619362571ce84a2768a7d995fbdb66f93309d3edbb9b8",
    ),
    _Typeface(
        "pacifico",
        "handwriting",
        "397f4f0a8a4c44e929cafa4cfede7240f7ac81a922f6779d3fefe2192c67d619",
        weights=(400,),
    ),
    _Typeface(
        "dancing-script",
        "handwriting",
        "e392efa74afec672f1c97f8699a16bb8439c8aca1a367ddb5cd035f11e70e31a",
    ),
    _Typeface(
        "caveat", "handwriting", "ebf746fc0667b9d10fcac7c8604e2ba40a264da85a1c9b48bd679c0af3221293"
    ),
    _Typeface(
        "great-vibes",
        "handwriting",
        "0bfdc957fa42a6d17288fce79a9299dab14742b77bdbb223c4385739d4035ca9",
        weights=(400,),
    ),
    _Typeface(
        "noto-sans-hebrew",
        "other scripts",
        "16a70f001f739cbcdaecdf3b164bdee8bb84cb35a8569d6dd9ec82dfcd74c78c",
    ),
    _Typeface(
        "noto-sans-thai",
        "other scripts",
        "263b3705d8dd9e3a24d267b2a2832d2252c81737f7aa45eec2ae57f87e8ad7aa",
    ),
    _Typeface(
        "noto-sans-georgian",
        "other scripts",
        "9aa744e7482a6a7eb8ed8139208d6e430c62c20637c8eff0ce15358f3b5c3e9c",
    ),
    _Typeface(
        "noto-sans-armenian",
        "other scripts",
        "ce3b746119f1e728f0b9902287654a8828dd67cc6520139e8745f74779a92713",
    ),
    _Typeface(
        "noto-sans-devanagari",
        "other scripts",
        "8d42be0e944481b61e68c7702037d4143e96bf48dbb72d19ea05d0cacc1323d5",
    ),
    _Typeface(
        "noto-serif-thai",
        "other scripts",
        "3f7bccec3fd7d62ba8ac5470c0f10d648d48c58a50c244d91e657ab5150410f2",
    ),
)
_SCRIPTS = {
    "latin": ascii_lowercase,
    "greek": "αβγδεζηθικλμνξοπρστυφχψω",
    "cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "hebrew": "אבגדהוזחטיכלמנסעפצקרשת",
    "thai": "กขคฆงจฉชซฌญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรลวศษสหฬอฮ",
    "georgian": "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ",
    "armenian": "աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցփքօֆ",
    "devanagari": "कखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह",
}
_SCRIPT_FAMILIES = {
    "sans": dict.fromkeys(("latin", "greek", "cyrillic"), "noto-sans")
    | {s: f"noto-sans-{s}" for s in ("hebrew", "thai", "georgian", "armenian", "devanagari")},
    "serif": dict.fromkeys(("latin", "greek", "cyrillic"), "noto-serif")
    | {"thai": "noto-serif-thai"},
}


def sets(cache_dir: Path) -> Iterator[LabelledSet]:
    latin = {
        genre: union(
            (
                _set(face, cache_dir, "latin", ascii_lowercase + ascii_uppercase + digits)
                for face in _TYPEFACES
                if face.genre == genre
            ),
            ("typefaces", genre),
        )
        for genre in ("serif", "sans", "mono", "handwriting")
    }
    for genre, pool in latin.items():
        yield pool.ask(f"letters-{genre}", "letter", question="which-letter", per_class=5)
    for genre in ("serif", "sans", "mono"):
        yield latin[genre].ask(f"numerals-{genre}", "digit", question="which-digit", per_class=12)
    for genre in ("serif", "sans"):
        yield from _questions(genre, latin[genre])
    yield (
        latin["sans"]
        .where(digit=tuple(digits))
        .varied("paper", {"black": pictures.inverted})
        .ask("numerals-sans-inverse", "digit", question="which-digit", per_class=12)
    )
    yield latin["sans"].ask("capitals-sans", "capital", question="which-letter", per_class=5)
    every = union(latin.values(), ("typefaces", "mixed-genres")).where(case="lower")
    yield every.ask("typefaces-genres", "genre", question="drawing-style", per_class=30)
    for genre, families in _SCRIPT_FAMILIES.items():
        faces = {face.family: face for face in _TYPEFACES}
        scripts = union(
            (_set(faces[f], cache_dir, s, _SCRIPTS[s]) for s, f in families.items()),
            ("typefaces", genre),
        )
        yield scripts.ask(
            f"writing-systems-{genre}", "script", question="writing-system", per_class=18
        )


def _questions(genre: str, pool: Pool) -> Iterator[LabelledSet]:
    letters = pool.where(case=("lower", "upper"), most=900)
    yield letters.ask(f"letters-case-{genre}", "case", question="case", per_class=50)
    yield letters.ask(f"letters-weight-{genre}", "weight", question="weight", per_class=50)
    yield letters.ask(f"letters-slant-{genre}", "slant", question="slant", per_class=50)
    small = letters.where(case="lower")
    yield small.ask(f"letters-vowels-{genre}", "vowel", question="which-letter", per_class=50)


def _set(face: _Typeface, cache_dir: Path, script: str, characters: str) -> Pool:
    files = fetch(face.package, cache_dir) / "package" / "files"
    drawn = []
    for weight, slant in product(face.weights, face.slants):
        path = files / f"{face.family}-{script}-{weight}-{slant}.woff"
        fonts = [ImageFont.truetype(path, size) for size in _SIZES]
        for character in characters:
            key = f"{face.family} {weight} {slant} {character}"
            facts = _facts(character, script) | {
                "genre": face.genre,
                "weight": "bold" if weight > 400 else "regular",
                "slant": slant,
            }
            drawn.append(Picture(key, _drawn(character, fonts, key), facts))
    return Pool(f"@fontsource/* {_VERSION} (npm)", _LICENCE, (), tuple(drawn))


def _facts(character: str, script: str) -> dict[str, str]:
    if script != "latin":
        return {"script": script}
    if character.isdigit():
        return {"digit": character}
    if character.isupper():
        return {"case": "upper", "capital": character}
    return {
        "script": script,
        "case": "lower",
        "letter": character,
        "vowel": "vowel" if character in "aeiou" else "consonant",
    }


def _drawn(character: str, fonts: list[ImageFont.FreeTypeFont], key: str) -> bytes:
    """Black on white, centred but for a few pixels that the key decides, as is the size."""
    size, right, down = hashlib.sha256(key.encode()).digest()[:3]
    canvas = Image.new("L", (_CANVAS, _CANVAS), 255)
    centre = _CANVAS // 2
    position = (centre + _SHIFTS[right % len(_SHIFTS)], centre + _SHIFTS[down % len(_SHIFTS)])
    font = fonts[size % len(fonts)]
    ImageDraw.Draw(canvas).text(position, character, fill=0, font=font, anchor="mm")
    return pictures.to_png(canvas)
