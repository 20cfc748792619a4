"""Where two embeddings differ, on numbers that are worked out by hand."""

from __future__ import annotations

import numpy as np

from app.embedding.layers import Layer, LayerDifference, by_layer

LAYERS = [Layer("stem", 0, 2), Layer("body", 2, 5), Layer("top", 5, 6)]
# With epsilon 1 the logarithms of the ratios are 2, -1; -1, 4 and a filter dead in both; dead in
# both. Their mean over the four that are alive is 1.
A = np.array([3, 0, 1, 15, 0, 0], np.float32)
B = np.array([0, 1, 3, 0, 0, 0], np.float32)


def test_layers_differ_by_the_mean_and_the_spread_of_their_live_filters_alone() -> None:
    assert by_layer(A, B, LAYERS, epsilon=1.0) == [
        LayerDifference("stem", filters=2, shift=-0.5, spread=1.5),
        LayerDifference("body", filters=2, shift=0.5, spread=2.5),
    ]


def test_the_other_way_round_shifts_change_their_sign_and_spreads_stay() -> None:
    there, back = by_layer(A, B, LAYERS, epsilon=1.0), by_layer(B, A, LAYERS, epsilon=1.0)
    assert [-each.shift for each in back] == [each.shift for each in there]
    assert [each.spread for each in back] == [each.spread for each in there]


def test_what_all_filters_have_in_common_is_no_difference() -> None:
    a = np.array([1, 2, 4, 8, 16, 32], np.float32)
    assert by_layer(4 * a, a, LAYERS, epsilon=0.0) == [
        LayerDifference("stem", filters=2, shift=0.0, spread=0.0),
        LayerDifference("body", filters=3, shift=0.0, spread=0.0),
        LayerDifference("top", filters=1, shift=0.0, spread=0.0),
    ]


def test_two_embeddings_without_a_live_filter_differ_nowhere() -> None:
    dead = np.zeros(6, np.float32)
    assert by_layer(dead, dead, LAYERS, epsilon=1.0) == []
