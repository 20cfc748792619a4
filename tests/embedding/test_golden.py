"""Numbers pinned: the same images must give the same embedding in every version of a space.

Where one of these moves on purpose, raise METHOD_VERSION or PREPROCESSING, rebuild the reference
library, and pin the new numbers. The margins leave room for other processors' rounding.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from app.catalogue import ProbeCard, get_card
from app.embedding.archive import ArchiveLimits
from app.embedding.dataset import read_labelled_images
from app.embedding.embed import embed_images
from app.embedding.probe import load_probe
from app.embedding.vector import TaskEmbedding
from app.settings import shared_directory
from tests.images import make_zip


@pytest.fixture(scope="module")
def embedding() -> TaskEmbedding:
    """The first 24 of scikit-learn's digits 0 to 3, as PNG files, through the default probe."""
    digits = load_digits(n_class=4)
    files = {}
    for number, (scan, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if number == 24:
            break
        buffer = io.BytesIO()
        Image.fromarray((255 - scan * 15.9).astype(np.uint8)).save(buffer, "PNG")
        files[f"{label}/{number}.png"] = buffer.getvalue()
    card = get_card(shared_directory("models"), ProbeCard, "tf_efficientnet_lite0")
    images, _ = read_labelled_images(
        [io.BytesIO(make_zip(files))],
        size=card.input_size,
        label_kind="auto",
        limits=ArchiveLimits(),
        max_image_pixels=10**6,
    )
    return embed_images(images, load_probe(card, "cpu"))


def test_the_default_space_keeps_its_name(embedding: TaskEmbedding) -> None:
    assert embedding.space_id == "c9e3310a7c8167e0"


def test_the_same_images_keep_their_embedding(embedding: TaskEmbedding) -> None:
    assert embedding.complexity == pytest.approx(1.797, rel=0.02)
    assert embedding.domain.sum() == pytest.approx(3898, rel=0.02)
    assert embedding.provenance.penalty == pytest.approx(0.002135, rel=0.01)
    logs = np.log2(embedding.vector[::2000] + embedding.epsilon)
    pinned = [
        -10.18,
        -13.00,
        -12.16,
        -17.03,
        -17.08,
        -39.86,
        -18.84,
        -31.42,
        -21.79,
        -16.27,
        -29.23,
    ]
    np.testing.assert_allclose(logs, pinned, atol=0.1)


def test_the_same_images_keep_their_discriminants(embedding: TaskEmbedding) -> None:
    axes = embedding.discriminants
    lengths = np.linalg.norm(axes, axis=1)
    np.testing.assert_allclose(lengths, [0.04747, 0.03165, 0.02948, 0], rtol=0.02)
    assert axes[0, 891] == pytest.approx(0.004584, rel=0.02)
