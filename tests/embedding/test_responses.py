from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.embedding.probe import load_probe
from app.embedding.responses import stages_of
from app.errors import InvalidRequest
from tests.probes import original_network, probe_card

NETWORKS = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"]


@pytest.mark.parametrize("network", NETWORKS)
def test_responses_are_means_and_deviations_at_the_end_of_each_stage(
    network: str, tmp_path: Path
) -> None:
    """As the original network gives them, which no normalisation has been folded into."""
    card = probe_card(tmp_path, network)
    probe = load_probe(card, "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    features, responses = probe.look(pixels)

    original, seen = original_network(card), []
    for info in original.feature_info:  # type: ignore[union-attr]
        original.get_submodule(info["module"]).register_forward_hook(
            lambda _module, _inputs, output: seen.append(output)
        )
    with torch.no_grad():
        expected_features = original(probe.normalise(pixels))
    expected = []
    for output in seen:
        channels_first = output.transpose(1, 2) if output.ndim == 3 else output.flatten(2)
        values = channels_first.double().numpy()
        expected += [values.mean(axis=2), values.std(axis=2)]
    np.testing.assert_allclose(features, expected_features, atol=2e-5)
    np.testing.assert_allclose(responses, np.concatenate(expected, axis=1), atol=2e-5)
    kinds = np.concatenate([np.full(each.shape[1], kind) for kind, each in enumerate(expected)])
    np.testing.assert_array_equal(probe.response_kinds, kinds)
    assert [stage.name for stage in probe.stages] == [
        info["module"]
        for info in original.feature_info  # type: ignore[union-attr]
    ]


def test_other_stages_are_another_space(tmp_path: Path) -> None:
    probe = load_probe(probe_card(tmp_path), "cpu")
    fewer = replace(probe, stages=probe.stages[1:])
    assert fewer.space_id != probe.space_id
    assert len(fewer.response_kinds) < len(probe.response_kinds)


def test_a_pass_leaves_no_hook_behind(tmp_path: Path) -> None:
    probe = load_probe(probe_card(tmp_path), "cpu")
    probe.look(np.zeros((2, 32, 32, 3), np.uint8))
    assert not any(module._forward_hooks for module in probe.network.modules())


def test_a_network_that_names_no_stages_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="which of its modules are stages"):
        stages_of(nn.Sequential(nn.Conv2d(3, 4, 3)))


def test_a_network_without_a_module_that_it_lists_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    network.feature_info = [  # type: ignore[assignment]
        {"module": "0", "num_chs": 4},
        {"module": "head", "num_chs": 4},
    ]
    with pytest.raises(InvalidRequest, match="no module 'head'"):
        stages_of(network)


def test_a_stage_of_other_channels_than_it_says_is_refused(tmp_path: Path) -> None:
    probe = load_probe(probe_card(tmp_path), "cpu")
    wrong = replace(probe.stages[0], channels=probe.stages[0].channels + 1)
    strange = replace(probe, stages=(wrong, *probe.stages[1:]))
    with pytest.raises(InvalidRequest, match="channels an image"):
        strange.look(np.zeros((2, 32, 32, 3), np.uint8))
