"""Patches of the sample photographs that scikit-learn and scikit-image carry."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from app.reference import pictures
from app.reference.packages import Package, fetch
from app.reference.sets import LabelledSet, Picture, Pool, union

_SCIKIT_IMAGE = Package(
    "pypi",
    "scikit-image",
    "0.26.0",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
)
_PATCH = 72  # pixels, square
_STEP = 36  # pixels
_TEXTURES = ("brick", "grass", "gravel")
_SCENES = {
    "astronaut.png": "public domain",
    "chelsea.png": "CC0-1.0",
    "coffee.png": "CC0-1.0",
    "rocket.jpg": "public domain",
    "retina.jpg": "CC0-1.0",
    "hubble_deep_field.jpg": "public domain",
    "camera.png": "CC0-1.0",
    "clock_motion.png": "public domain",
}

_SHARPNESS = {
    "sharp": partial(pictures.turned, quarter_turns=0),
    "blurred": partial(pictures.blurred, radius=2.0),
}


def sets(cache_dir: Path) -> Iterator[LabelledSet]:
    china, flower = _sample("china.jpg"), _sample("flower.jpg")
    yield union((china, flower), ("patches", "photographs")).ask(
        "patches-china-or-flower", "photograph", question="what-it-shows", per_class=50
    )
    for name, patches in {"china": china, "flower": flower}.items():
        yield patches.ask(f"patches-quarter-{name}", "quarter", question="position", per_class=26)
        yield from _questions(name, patches)

    files = fetch(_SCIKIT_IMAGE, cache_dir) / "skimage" / "data"
    textures = union(
        (_photograph(files / f"{name}.png", "CC0-1.0") for name in _TEXTURES),
        ("patches", "textures"),
    )
    yield textures.ask("textures", "photograph", question="what-it-shows", per_class=36)
    yield from _questions("textures", textures)
    scenes = union(
        (_photograph(files / name, licence) for name, licence in _SCENES.items()),
        ("patches", "photographs"),
    )
    yield scenes.ask("scenes", "photograph", question="what-it-shows", per_class=14)
    yield from _questions("scenes", scenes)


def _questions(name: str, patches: Pool) -> Iterator[LabelledSet]:
    some = patches.where(most=120)
    asked = {
        "detail": some.extremes("detail", pictures.detail, "smooth", "detailed"),
        "lightness": some.extremes("lightness", pictures.lightness, "dark", "light"),
        "sharpness": some.varied("sharpness", _SHARPNESS),
    }
    for fact, pool in asked.items():
        yield pool.ask(f"patches-{fact}-{name}", fact, question=fact, per_class=60)
    yield some.varied("turn", pictures.QUARTER_TURNS).ask(
        f"patches-turns-{name}", "turn", question="orientation", per_class=30
    )


def _sample(file: str) -> Pool:
    return _cut(
        Image.fromarray(load_sample_image(file)),
        name=file.removesuffix(".jpg"),
        source=f"{file} of scikit-learn {version('scikit-learn')} (pypi)",
        licence="CC-BY-2.0 ("
        + {"china.jpg": "danielbuechele", "flower.jpg": "vultilion"}[file]
        + ")",
    )


def _photograph(path: Path, licence: str) -> Pool:
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((512, 512))
    return _cut(picture, path.stem, f"sample photographs of {_SCIKIT_IMAGE}", licence)


def _cut(photograph: Image.Image, name: str, source: str, licence: str) -> Pool:
    """Overlapping square patches; `quarter` is where in the photograph a patch's centre lies."""
    pixels = np.asarray(photograph.convert("RGB"))
    height, width, _ = pixels.shape
    patches = []
    for top in range(0, height - _PATCH + 1, _STEP):
        for left in range(0, width - _PATCH + 1, _STEP):
            middle = top + _PATCH // 2, left + _PATCH // 2
            row = "upper" if middle[0] < height / 2 else "lower"
            column = "left" if middle[1] < width / 2 else "right"
            patch = pixels[top : top + _PATCH, left : left + _PATCH]
            facts = {"photograph": name, "quarter": f"{row} {column}"}
            data = pictures.to_png(Image.fromarray(patch))
            patches.append(Picture(f"{name} {top} {left}", data, facts))
    return Pool(source, licence, ("patches", name), tuple(patches))
