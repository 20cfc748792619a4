from __future__ import annotations

import io

import numpy as np
from PIL import Image

from app.embedding.dataset import LabelledImages
from app.embedding.strips import CLASSES, IMAGES, SIDE, class_strips


def images_of(labels: np.ndarray, classes: int) -> LabelledImages:
    """Image n has the shade n, and the digests run the other way round."""
    n = len(labels)
    pixels = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 8, 8, 3)).copy()
    return LabelledImages(
        pixels,
        labels,
        tuple(f"class {index:03}" for index in range(classes)),
        tuple(f"{n - index:064x}" for index in range(n)),
        "single_label" if labels.ndim == 1 else "multi_label",
    )


def shades(picture: bytes) -> list[int]:
    with Image.open(io.BytesIO(picture)) as strip:
        assert strip.format == "WEBP"
        assert strip.height == SIDE
        grey = np.asarray(strip.convert("L"))
    return grey[SIDE // 2, SIDE // 2 :: SIDE].tolist()


def test_a_strip_shows_the_first_images_of_its_class_by_digest() -> None:
    labels = np.array([0] * 20 + [1] * 3)
    many, few = class_strips(images_of(labels, 2))
    assert (many.label, few.label) == ("class 000", "class 001")
    assert np.abs(np.array(shades(many.picture)) - np.arange(19, 19 - IMAGES, -1)).max() <= 3
    assert np.abs(np.array(shades(few.picture)) - [22, 21, 20]).max() <= 3


def test_of_several_labels_an_image_is_in_the_strip_of_each() -> None:
    labels = np.array([[True, True], [False, True]])
    first, second = class_strips(images_of(labels, 2))
    assert len(shades(first.picture)) == 1
    assert len(shades(second.picture)) == 2


def test_of_many_classes_the_largest_have_strips_in_the_order_of_the_set() -> None:
    labels = np.concatenate([np.arange(CLASSES + 5), np.arange(5, CLASSES + 5)])
    strips = class_strips(images_of(labels, CLASSES + 5))
    assert [strip.label for strip in strips] == [f"class {n:03}" for n in range(5, CLASSES + 5)]
