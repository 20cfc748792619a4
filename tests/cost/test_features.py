from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cost.features import DECODED_AT_ALL, REFERENCE_PIXELS, TaskFacts, split, workload
from app.errors import InvalidRequest
from tests.cost.cards import CANDIDATE, FULL, HEAD, TASK


def phase(name: str, work):
    return next(phase for phase in work.phases if phase.name == name)


def test_steps_are_epochs_times_batches_with_the_last_batch_partial():
    parts = split(TASK, FULL)
    assert (parts.train_images, parts.held_out_images) == (80, 20)
    assert parts.steps == 10 * 3


def test_a_set_smaller_than_a_batch_is_one_batch_an_epoch():
    small = TaskFacts(10, 2, None, "single_label")
    parts = split(small, FULL)
    assert parts.batch_size == parts.train_images == 8
    assert parts.steps == 10


def test_a_single_image_is_trained_on_and_nothing_is_held_out():
    one = split(
        TaskFacts(1, 1, None, "multi_label"), FULL.model_copy(update={"evaluation_share": 0.9})
    )
    assert (one.train_images, one.held_out_images, one.batch_size) == (1, 0, 1)


def test_nothing_held_out_costs_no_evaluation():
    work = workload(TASK, CANDIDATE, FULL.model_copy(update={"evaluation_share": 0.0}))
    evaluation = phase("evaluation", work)
    assert (evaluation.flops, evaluation.kernels, evaluation.decoded_images) == (0, 0, 0)


@pytest.mark.parametrize(("images", "classes"), [(0, 2), (5, 0), (-1, 2)])
def test_a_task_without_images_or_classes_is_refused(images, classes):
    with pytest.raises(InvalidRequest, match="cannot be estimated"):
        TaskFacts(images, classes, None, "single_label")


def test_full_training_counts_two_flops_per_multiply_add_of_network_and_classifier():
    training = phase("training", workload(TASK, CANDIDATE, FULL))
    assert training.flops == 2 * (3e9 + 3 * 10 * 100) * 80 * 10
    assert training.decoded_images == 800
    assert training.activation_bytes == 30e6 * 800


def test_large_images_take_longer_to_decode_and_small_ones_less_but_not_nothing():
    effort = [
        TaskFacts(10, 2, None, "single_label", mean_pixels=pixels).decode_effort
        for pixels in (1.0, REFERENCE_PIXELS, 4 * REFERENCE_PIXELS)
    ]
    assert effort == pytest.approx([DECODED_AT_ALL, 1.0, DECODED_AT_ALL + 0.8 * 4], rel=1e-4)
    assert TaskFacts(10, 2, None, "single_label").decode_effort == 1.0


def test_every_phase_that_reads_files_decodes_them():
    photographs = replace(TASK, mean_pixels=12e6)
    for recipe in (FULL, HEAD):
        for each in workload(photographs, CANDIDATE, recipe).phases:
            assert each.decoding == each.decoded_images * photographs.decode_effort


def test_weights_move_once_a_step_not_once_an_image():
    whole = phase("training", workload(TASK, CANDIDATE, FULL))
    halves = phase(
        "training", workload(TASK, CANDIDATE, FULL.model_copy(update={"batch_size": 80}))
    )
    assert whole.weight_bytes == 3 * halves.weight_bytes
    assert whole.activation_bytes == halves.activation_bytes


def test_cached_features_run_the_network_once_over_all_images():
    features = phase("features", workload(TASK, CANDIDATE, HEAD))
    assert features.flops == 2 * 1e9 * 100
    assert features.decoded_images == 100


def test_uncached_features_run_the_network_once_an_epoch():
    uncached = HEAD.model_copy(update={"features_cached": False})
    cached = phase("features", workload(TASK, CANDIDATE, HEAD))
    assert phase("features", workload(TASK, CANDIDATE, uncached)).flops == 10 * cached.flops


def test_a_classifier_costs_little_beside_the_network():
    work = workload(TASK, CANDIDATE, HEAD)
    assert phase("classifier", work).flops < 0.001 * phase("features", work).flops


def test_memory_holds_weights_gradients_and_two_adamw_states():
    trained = 1_000_000 + 10 * 101
    assert workload(TASK, CANDIDATE, FULL).resident_bytes == 4 * trained * 4


def test_memory_of_sgd_holds_one_state():
    sgd = FULL.model_copy(update={"optimiser": "sgd"})
    assert workload(TASK, CANDIDATE, sgd).resident_bytes == 4 * (1_000_000 + 10 * 101) * 3


def test_a_frozen_network_keeps_no_gradients():
    work = workload(TASK, CANDIDATE, HEAD)
    assert work.resident_bytes == 4 * (1_000_000 + 4 * 10 * 101)
    assert work.bytes_per_image == CANDIDATE.largest_operation_bytes


@given(
    images=st.integers(1, 10**6),
    share=st.floats(0, 0.99),
    batch=st.integers(1, 4096),
    epochs=st.integers(1, 300),
)
def test_every_split_trains_on_something_and_covers_every_image(images, share, batch, epochs):
    recipe = FULL.model_copy(
        update={"evaluation_share": share, "batch_size": batch, "epochs": epochs}
    )
    parts = split(TaskFacts(images, 2, None, "single_label"), recipe)
    assert parts.train_images >= 1
    assert parts.train_images + parts.held_out_images == images
    assert parts.steps * parts.batch_size >= epochs * parts.train_images


@pytest.mark.parametrize(
    ("train_images", "batch", "steps"),
    [(5, 5, 1), (20, 8, 3), (50, 8, 7), (200, 25, 8), (512, 64, 8), (10_000, 64, 157)],
)
def test_of_a_small_set_batches_are_smaller_and_steps_more(train_images, batch, steps):
    recipe = FULL.model_copy(
        update={
            "batch_size": 64,
            "least_steps_an_epoch": 8,
            "evaluation_share": 0.0,
            "epochs": 20,
        }
    )
    parts = split(replace(TASK, n_images=train_images), recipe)
    assert (parts.batch_size, parts.steps) == (batch, 20 * steps)
