"""Photographed pictures: clothes (Fashion-MNIST), and patches of sample photographs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from app.reference import fashion, packages, photographs, pictures
from app.reference.sets import Picture, Pool, union
from benchmarks.quality import questions
from benchmarks.quality.questions import QuestionedPool, TwinTask, groups, named, twin

_CLOTHES_STARTS = (0, 1_500)
_PATCH = 40  # pixels, square; patches do not overlap
_LARGEST = 720  # pixels; larger photographs are reduced first
_LEAST_DETAIL = 0.01  # `pictures.detail`: plain sky shows neither which way up nor how sharp it is

_TEXTURES = ("brick.png", "grass.png", "gravel.png")
_SCENES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
_LENSES = ("retina.jpg", "ihc.png", "hubble_deep_field.jpg", "moon.png", "cell.png")


def twin_tasks(cache_dir: Path) -> Iterator[TwinTask]:
    yield from _clothes_tasks(_clothes(cache_dir))
    yield from _patch_tasks(cache_dir)


def questioned_pools(cache_dir: Path) -> Iterator[QuestionedPool]:
    kinds = _clothes(cache_dir).where(kind=("trousers", "pullover", "sneaker", "bag"))
    clothes = questions.paper(questions.turn(questions.lighter_half(kinds)))
    yield QuestionedPool(
        "fashion",
        ("photographed", "clothing", "several groups", "all", "all"),
        clothes,
        {
            "kind": "what it shows",
            "turn": "orientation",
            "paper": "paper",
            "lightness": "lightness",
        },
    )
    patches = _patches(cache_dir, ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"))
    patches = questions.lighter_half(_structured(patches))
    patches = questions.sharpness(questions.turn(patches))
    yield QuestionedPool(
        "patches",
        ("photographed", "patches", "scenes", "several photographs", "all"),
        patches,
        {
            "photograph": "what it shows",
            "turn": "orientation",
            "sharpness": "sharpness",
            "lightness": "lightness",
        },
    )


def _clothes(cache_dir: Path) -> Pool:
    pool = union((fashion._clothes(cache_dir, s) for s in _CLOTHES_STARTS), ("fashion",))
    return questions.halved(questions.with_subject(pool, lambda p: p.key), "kind")


def _clothes_tasks(pool: Pool) -> Iterator[TwinTask]:
    def ask(name: str, kinds: Iterable[str], group: str, question: str) -> TwinTask:
        return twin(
            f"fashion-{name}",
            pool.where(kind=kinds),
            images="clothes" if group == "several groups" else group,
            question=question,
            path=("photographed", "clothing", group, "all", "content"),
            fact="kind",
        )

    yield ask("kinds", fashion._KINDS, "several groups", "what it shows")
    yield ask("footwear", ("sandal", "sneaker", "ankle boot"), "footwear", "what it shows")
    tops = ("t-shirt", "pullover", "coat", "shirt")
    yield ask("tops", tops, "tops", "what it shows")
    yield ask("trousers-or-dress", ("trousers", "dress"), "full length", "what it shows")
    yield twin(
        "fashion-uses",
        pool,
        images="clothes",
        question="use",
        path=("photographed", "clothing", "several groups", "all", "content"),
        fact="use",
        ask=named(
            "use",
            "kind",
            groups(
                clothing=(*tops, "dress", "trousers"),
                shoe=("sandal", "sneaker", "ankle boot"),
                bag=("bag",),
            ),
        ),
    )
    looks = ("photographed", "clothing", "several groups", "all", "appearance")
    for question, fact, some in (
        ("lightness", "lightness", questions.lightness),
        ("detail", "detail", questions.detail),
        ("orientation", "turn", questions.turn),
    ):
        yield twin(
            f"fashion-{fact}",
            pool,
            images="clothes",
            question=question,
            path=looks,
            fact=fact,
            ask=some,
        )


def _patches(cache_dir: Path, files: Iterable[str]) -> Pool:
    root = packages.fetch(photographs._SCIKIT_IMAGE, cache_dir) / "skimage" / "data"
    cut: list[Picture] = []
    for file in files:
        with Image.open(root / file) as image:
            cut.extend(_cut(image.convert("RGB"), file.split(".")[0]))
    return _pool(cut, f"sample photographs of {photographs._SCIKIT_IMAGE}")


def _sample(file: str) -> Pool:
    image = Image.fromarray(load_sample_image(file))
    return _pool(_cut(image, file.split(".")[0]), f"{file} of scikit-learn")


def _pool(patches: Iterable[Picture], source: str) -> Pool:
    pool = Pool(source, "public domain, CC0-1.0 or CC-BY-2.0", ("patches",), tuple(patches))
    pool = questions.with_subject(questions.distinct(pool), lambda p: p.key)
    return questions.halved(pool, "photograph", "quarter")


def _structured(pool: Pool) -> Pool:
    """Without patches of plain sky and the like; the others stay in their halves."""
    kept = tuple(p for p in pool.pictures if pictures.detail(p.data) >= _LEAST_DETAIL)
    return replace(pool, pictures=kept)


def _cut(photograph: Image.Image, name: str) -> Iterator[Picture]:
    """Patches side by side; `quarter` is where in the photograph a patch lies."""
    photograph.thumbnail((_LARGEST, _LARGEST))
    pixels = np.asarray(photograph)
    rows, columns = pixels.shape[0] // _PATCH, pixels.shape[1] // _PATCH
    for row in range(rows):
        for column in range(columns):
            top, left = row * _PATCH, column * _PATCH
            patch = Image.fromarray(pixels[top : top + _PATCH, left : left + _PATCH])
            quarter = (
                f"{'upper' if 2 * row + 1 < rows else 'lower'} "
                f"{'left' if 2 * column + 1 < columns else 'right'}"
            )
            facts = {"photograph": name, "quarter": quarter}
            yield Picture(f"{name} {top} {left}", pictures.to_png(patch), facts)


def _patch_tasks(cache_dir: Path) -> Iterator[TwinTask]:
    scenes, textures, lenses = (
        _patches(cache_dir, files) for files in (_SCENES, _TEXTURES, _LENSES)
    )
    scenes = _structured(scenes)
    for name, pool in {"scenes": scenes, "textures": textures, "instruments": lenses}.items():
        yield twin(
            name,
            pool,
            images=f"patches of {name}",
            question="what it shows",
            path=("photographed", "patches", name, "several photographs", "content"),
            fact="photograph",
        )
    china, flower = _sample("china.jpg"), _sample("flower.jpg")
    for name, pool in {"china": china, "flower": flower}.items():
        yield twin(
            f"{name}-quarters",
            pool,
            images=f"patches of {name}",
            question="position",
            path=("photographed", "patches", "scenes", name, "content"),
            fact="quarter",
        )
    # Other photographs of the same kind are another style.
    places = _patches(cache_dir, ("rocket.jpg", "motorcycle_left.png"))
    beings = _patches(cache_dir, ("astronaut.png", "chelsea.png", "coffee.png"))
    structured = (_structured(places), _structured(beings))
    for question, fact, (first, second), ask in (
        ("lightness", "lightness", (places, beings), questions.lightness),
        ("detail", "detail", (places, beings), questions.detail),
        ("sharpness", "sharpness", structured, questions.sharpness),
        ("orientation", "turn", structured, questions.turn),
    ):
        yield twin(
            f"scenes-{fact}",
            first,
            second,
            images="patches of scenes",
            question=question,
            path=("photographed", "patches", "scenes", "several photographs", "appearance"),
            fact=fact,
            ask=ask,
        )
    yield twin(
        "textures-sharpness",
        _structured(textures),
        images="patches of textures",
        question="sharpness",
        path=("photographed", "patches", "textures", "several photographs", "appearance"),
        fact="sharpness",
        ask=questions.sharpness,
    )
