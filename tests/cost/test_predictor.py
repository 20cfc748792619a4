from __future__ import annotations

from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalogue import CandidateCard, DeviceCard, RecipeCard
from app.cost.correction import Factor
from app.cost.features import TaskFacts
from app.cost.predictor import MIB, Interval, estimate
from app.errors import InvalidRequest
from tests.cost.cards import CANDIDATE, FULL, GPU, HEAD, TASK

COMPUTE_SECONDS = 2 * (3e9 + 3000) * 800 / 1e12  # training, at the peak
EVALUATION_SECONDS = 2 * 1e9 * 200 / 1e12


def typical_seconds(device=GPU, candidate=CANDIDATE, recipe=FULL) -> float:
    return estimate(TASK, candidate, recipe, device, difficulty=None).seconds.typical


def test_seconds_of_a_compute_bound_run_are_flops_over_peak_over_efficiency():
    seconds = estimate(TASK, CANDIDATE, FULL, GPU, difficulty=None).seconds
    at_peak = COMPUTE_SECONDS + EVALUATION_SECONDS
    assert seconds.low == pytest.approx(at_peak)
    assert seconds.typical == pytest.approx(at_peak / 0.5)
    assert seconds.high == pytest.approx(at_peak / 0.25)
    assert seconds.kind == "uncalibrated_range"


def test_seconds_of_a_memory_bound_run_are_bytes_over_bandwidth():
    slow = GPU.model_copy(update={"bandwidth_bytes_per_second": 1e6})
    moved = 30e6 * 800 + 4 * 1_001_010 * 10 * 30 + 10e6 * 200 + 4 * 1_000_000 * 10
    assert typical_seconds(slow) == pytest.approx(moved / 1e6 / 0.5)


def test_half_precision_halves_activation_bytes_but_not_weights():
    slow = GPU.model_copy(update={"bandwidth_bytes_per_second": 1e6, "precision": "bf16"})
    moved = (30e6 * 800 + 10e6 * 200) / 2 + 4 * 1_001_010 * 10 * 30 + 4 * 1_000_000 * 10
    assert typical_seconds(slow) == pytest.approx(moved / 1e6 / 0.5)


def test_tiny_networks_are_bound_by_kernel_launches():
    launching = GPU.model_copy(update={"launch_seconds": 1.0})
    assert typical_seconds(launching) == pytest.approx(30 * 320 + 10 * 100)


def test_slow_decoding_hides_a_gpus_compute_and_adds_to_a_cpus():
    gpu = GPU.model_copy(update={"decode_images_per_second": 1.0})
    cpu = gpu.model_copy(update={"kind": "cpu"})
    assert typical_seconds(gpu) == pytest.approx(1000)
    assert typical_seconds(cpu) == pytest.approx(1000 + typical_seconds())


def test_start_up_is_paid_once():
    started = GPU.model_copy(update={"startup_seconds": 60.0})
    assert typical_seconds(started) == pytest.approx(60 + typical_seconds())


def test_money_is_seconds_at_the_hourly_price():
    row = estimate(TASK, CANDIDATE, FULL, GPU, difficulty=None)
    assert row.money_usd.typical == pytest.approx(row.seconds.typical * 3.6 / 3600)


def test_energy_is_watt_hours_and_never_above_the_rated_power():
    row = estimate(TASK, CANDIDATE, FULL, GPU, difficulty=None)
    assert row.energy_wh.high == pytest.approx(row.seconds.high * 100 / 3600)
    assert row.energy_wh.low < row.energy_wh.typical < row.energy_wh.high


def test_inference_is_one_forward_pass_without_decoding():
    inference = estimate(TASK, CANDIDATE, FULL, GPU, difficulty=None).inference_seconds
    least = max(2 * 1e9 / GPU.peak_flops, (10e6 + 4e6) / GPU.bandwidth_bytes_per_second)
    assert inference.typical == pytest.approx(least / 0.5)
    assert inference.low < inference.typical < inference.high
    slow = GPU.model_copy(update={"decode_images_per_second": 0.01})
    assert estimate(TASK, CANDIDATE, FULL, slow, difficulty=None).inference_seconds == inference


def test_outcomes_correct_what_is_counted_and_say_whether_the_interval_is_calibrated():
    plain = estimate(TASK, CANDIDATE, FULL, GPU, difficulty=None)

    def corrected(**factors):
        return estimate(TASK, CANDIDATE, FULL, GPU, difficulty=None, factors=factors)

    scaled = corrected(seconds=Factor(3.0))
    assert scaled.seconds == plain.seconds.scaled(3.0)
    assert scaled.energy_wh == plain.energy_wh.scaled(3.0)
    assert scaled.money_usd.typical == pytest.approx(3 * plain.money_usd.typical)
    assert scaled.counted == plain.counted
    assert (scaled.calibrated, scaled.memory_mib) == (False, plain.memory_mib)

    known = corrected(seconds=Factor(3.0, 2.0, 5.0), memory_mib=Factor(1e6, 1e6, 1e6))
    assert known.seconds == Interval(
        *(plain.seconds.typical * times for times in (2.0, 3.0, 5.0)), "conformal_90"
    )
    assert known.calibrated
    assert not known.fits
    assert any(line.startswith("seconds: what is counted times 3") for line in known.basis)


def test_steps_are_exact():
    steps = estimate(TASK, CANDIDATE, FULL, GPU, difficulty=None).steps
    assert steps == Interval(30, 30, 30, "exact")


def test_memory_counts_weights_states_activations_and_context():
    context = GPU.model_copy(update={"context_bytes": 2**20})
    memory = estimate(TASK, CANDIDATE, FULL, context, difficulty=None).memory_mib
    assert memory.low == pytest.approx((4 * 1_001_010 * 4 + 32 * 5e6) / MIB + 1)


def test_what_does_not_fit_says_which_batch_would():
    row = estimate(
        TASK, CANDIDATE, FULL, GPU.model_copy(update={"memory_bytes": 10**8}), difficulty=None
    )
    assert not row.fits
    assert 0 < row.fitting_batch_size < 32
    smaller = FULL.model_copy(update={"batch_size": row.fitting_batch_size})
    device = GPU.model_copy(update={"memory_bytes": 10**8})
    assert estimate(TASK, CANDIDATE, smaller, device, difficulty=None).fits
    larger = FULL.model_copy(update={"batch_size": row.fitting_batch_size + 1})
    assert not estimate(TASK, CANDIDATE, larger, device, difficulty=None).fits


def test_where_the_weights_alone_do_not_fit_no_batch_does():
    row = estimate(
        TASK, CANDIDATE, FULL, GPU.model_copy(update={"memory_bytes": 10**6}), difficulty=None
    )
    assert (row.fits, row.fitting_batch_size) == (False, 0)


def test_a_batch_larger_than_the_set_needs_only_the_sets_memory():
    few = TaskFacts(4, 2, None, "single_label")
    device = GPU.model_copy(update={"memory_bytes": 50_000_000})
    assert estimate(few, CANDIDATE, FULL, device, difficulty=None).fits
    assert not estimate(TASK, CANDIDATE, FULL, device, difficulty=None).fits


def test_head_only_with_cached_features_is_cheaper_than_full_training():
    assert typical_seconds(recipe=HEAD) < typical_seconds() / 10


def test_every_number_says_what_it_rests_on_and_none_claims_calibration():
    row = estimate(TASK, CANDIDATE, FULL, GPU, difficulty=None)
    for number in (
        *("accuracy", "top1_percent", "difficulty", "steps", "seconds"),
        *("money_usd", "energy_wh", "memory_mib"),
    ):
        assert any(sentence.startswith(f"{number}: ") for sentence in row.basis), number
    assert row.accuracy is None
    assert row.calibrated is False
    assert any("no embedding stands for ImageNet-1k" in sentence for sentence in row.basis)


def test_a_known_difficulty_is_carried_with_its_source_even_when_negative():
    candidate = CANDIDATE.model_copy(update={"source_task": "abc"})
    row = estimate(TASK, candidate, FULL, GPU, difficulty=-0.05)
    assert row.difficulty == -0.05
    assert "difficulty: asymmetric distance from abc" in row.basis


@pytest.mark.parametrize("difficulty", [nan, inf])
def test_a_difficulty_that_is_no_number_is_refused(difficulty):
    with pytest.raises(InvalidRequest):
        estimate(TASK, CANDIDATE, FULL, GPU, difficulty=difficulty)


@given(
    images=st.integers(1, 100_000),
    classes=st.integers(1, 1000),
    batch=st.integers(1, 1024),
    head=st.booleans(),
    kind=st.sampled_from(["cpu", "gpu"]),
)
def test_ranges_stand_in_order_and_more_images_never_cost_less(images, classes, batch, head, kind):
    recipe = (HEAD if head else FULL).model_copy(update={"batch_size": batch})
    device = GPU.model_copy(update={"kind": kind, "startup_seconds": 5.0})
    row = estimate(
        TaskFacts(images, classes, None, "multi_label"), CANDIDATE, recipe, device, difficulty=None
    )
    for interval in (row.seconds, row.money_usd, row.energy_wh, row.memory_mib):
        assert 0 < interval.low <= interval.typical <= interval.high
    more = estimate(
        TaskFacts(2 * images, classes, None, "multi_label"),
        CANDIDATE,
        recipe,
        device,
        difficulty=None,
    )
    assert more.seconds.typical >= row.seconds.typical


def test_cards_at_their_bounds_still_give_finite_numbers():
    counted = {
        name: 10**15
        for name, field in CandidateCard.model_fields.items()
        if field.annotation is int and name != "input_size"
    }
    candidate = CandidateCard.model_validate(CANDIDATE.model_dump() | counted)
    slowest = {
        "peak_flops": 1e6,
        "bandwidth_bytes_per_second": 1e3,
        "launch_seconds": 10.0,
        "efficiency_low": 1e-4,
        "decode_images_per_second": 1e-3,
        "price_usd_per_hour": 1e6,
        "power_watts": 1e6,
    }
    device = DeviceCard.model_validate(GPU.model_dump() | slowest)
    endless = {"epochs": 100_000, "batch_size": 1_000_000}
    recipe = RecipeCard.model_validate(FULL.model_dump() | endless)
    task = TaskFacts(10**7, 10**5, None, "single_label")
    row = estimate(task, candidate, recipe, device, difficulty=None)
    for interval in (row.seconds, row.money_usd, row.energy_wh, row.memory_mib):
        assert isfinite(interval.high)
