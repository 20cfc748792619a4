"""The shipped probe cards: what their networks are made of, and that the method can measure them.

Weights that only a download gives are replaced by seeded ones: architectures are judged here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn

from app.catalogue import ProbeCard, load_cards
from app.embedding.fisher import estimate_fisher
from app.embedding.head import fit_head
from app.embedding.pretrained import weights_path
from app.embedding.probe import load_probe
from app.settings import shared_directory
from tests.probes import coloured_noise, original_network, seeded_weights
from tests.reference.naive_fisher import naive_fisher

CARDS = load_cards(shared_directory("models"), ProbeCard)
PACKAGED = [name for name, card in CARDS.items() if card.weights.source.startswith("package:")]
SHAPES = {  # filters, layers, features, responses
    "convnext_atto": (11_640, 40, 320, 1_200),
    "resnet18": (4_800, 20, 512, 2_048),
    "resnet34": (8_512, 36, 512, 2_048),
    "resnet50": (26_560, 53, 2048, 7_808),
    "tf_efficientnet_lite0": (21_008, 49, 1280, 1_024),
    "tf_efficientnet_lite1": (26_832, 64, 1280, 1_024),
    "tf_efficientnet_lite2": (29_048, 64, 1280, 1_120),
    "vit_small_patch14_dinov2": (41_856, 49, 384, 9_216),
    "vit_small_patch16_224": (41_856, 49, 384, 9_216),
}


def seeded(card: ProbeCard, directory: Path, size: int) -> ProbeCard:
    """The card with seeded weights, for images of another size."""
    weights = seeded_weights(directory, card.network, size)
    return card.model_copy(update={"weights": weights, "input_size": size})


def test_every_shipped_probe_is_judged_here() -> None:
    assert SHAPES.keys() == CARDS.keys()


@pytest.mark.parametrize("name", SHAPES)
def test_a_card_measures_each_convolution_and_block_and_neither_head_nor_norm(
    name: str, tmp_path: Path
) -> None:
    card = CARDS[name]
    probe = load_probe(seeded(card, tmp_path, card.input_size), "cpu")
    found = (probe.dim, len(probe.layers), probe.n_features, len(probe.response_kinds))
    assert found == SHAPES[name]
    names = [layer.name for layer in probe.layers]
    assert names == [
        name
        for name, module in probe.network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert not [name for name in names if {"head", "fc", "norm"} & set(name.split("."))]


@pytest.mark.parametrize("name", SHAPES)
def test_a_cards_normalisation_is_that_of_its_weights(name: str) -> None:
    card = CARDS[name]
    tag = card.weights.source.partition("timm:")[2] or "in1k"
    pretrained = timm.get_pretrained_cfg(f"{card.network}.{tag}", allow_unregistered=False)
    assert (card.mean, card.std) == (pretrained.mean, pretrained.std)
    assert card.licence.lower() == pretrained.license


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_see_a_palace_in_a_palace(name: str) -> None:
    """ImageNet weights in the right places, though their tensors go by other names."""
    card = CARDS[name]
    probe = load_probe(card, "cpu")
    assert card.is_pinned
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((224, 224))
    *_, weight, bias = torch.load(weights_path(card.weights.source), weights_only=True).values()
    logits = probe.features(np.asarray(photo)[None]) @ weight.T + bias
    assert timm.data.ImageNetInfo().index_to_description(int(logits.argmax())) in {
        "bell cote, bell cot",
        "palace",
        "monastery",
    }


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convnext_atto", 32),
        ("resnet18", 32),
        ("vit_small_patch16_224", 32),
        ("vit_small_patch14_dinov2", 28),
    ],
)
def test_the_fisher_of_a_cards_network_equals_the_naive_oracle(
    name: str, size: int, tmp_path: Path
) -> None:
    card = seeded(CARDS[name], tmp_path, size)
    probe = load_probe(card, "cpu", torch.float64)
    original = original_network(card, torch.float64)
    images = coloured_noise(3, 2, size)
    features = probe.features(images.pixels).numpy().astype(np.float64)
    head = fit_head(features, images.labels, 2, images.digests)
    found = estimate_fisher(
        images,
        probe,
        head,
        features,
        estimator="exact",
        draws=2,
        tolerance=None,
        seed=0,
        batch_size=16,
        on_batch=lambda done: None,
    )
    per_image = naive_fisher(
        original,
        [original.get_submodule(layer.name).weight for layer in probe.layers],
        torch.from_numpy(head.weight / head.scale),
        torch.from_numpy(head.bias),
        probe.normalise(images.pixels),
    )
    weights = head.image_weights(images.labels)
    naive = torch.cat(per_image, dim=1).numpy()
    expected = (weights[:, None] * naive).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(found.vector, expected, rtol=1e-8, atol=1e-12 * expected.max())
