from __future__ import annotations

from math import inf

import pytest

from app.cost.correction import Factor
from app.cost.features import TaskFacts
from app.cost.predictor import estimate
from app.cost.timing import SUSTAINED, Spread, Timing
from app.errors import InvalidRequest
from tests.cost.cards import CANDIDATE, FULL, GPU, HEAD, TASK

TIMING = Timing(16, Spread(0.9, 1.0, 1.2), Spread(0.2, 0.25, 0.3))
TRAINED, EVALUATED = 800 / 16, 200 / 16  # batches


def seconds(recipe=FULL, device=GPU, **asked):
    return estimate(TASK, CANDIDATE, recipe, device, difficulty=None, **asked).seconds


def test_a_timed_run_takes_its_steps_and_passes_and_nothing_that_is_counted():
    found = seconds(timing=TIMING)
    assert found.typical == pytest.approx(TRAINED * 1.0 + EVALUATED * 0.25)
    assert found.low == pytest.approx(TRAINED * 0.9 + EVALUATED * 0.2)
    assert found.high == pytest.approx(SUSTAINED * (TRAINED * 1.2 + EVALUATED * 0.3))
    assert found.kind == "uncalibrated_range"


def test_the_batch_of_the_recipe_does_not_matter():
    assert seconds(FULL.model_copy(update={"batch_size": 5}), timing=TIMING) == seconds(
        timing=TIMING
    )


def test_of_a_head_alone_the_features_are_timed_and_the_classifier_is_counted():
    features = 100 / 16 * 0.25
    found = seconds(HEAD, timing=TIMING).typical
    assert features < found < features + seconds(HEAD).typical


def test_start_up_and_decoding_stay_as_counted():
    cpu = GPU.model_copy(
        update={"kind": "cpu", "startup_seconds": 60.0, "decode_images_per_second": 1.0}
    )
    found = seconds(device=cpu, timing=TIMING).typical
    assert found == pytest.approx(60 + 1000 + seconds(timing=TIMING).typical)


def test_a_factor_from_outcomes_goes_before_a_timing_and_counts_stay_counts():
    found = estimate(
        TASK,
        CANDIDATE,
        FULL,
        GPU,
        difficulty=None,
        timing=TIMING,
        factors={"seconds": Factor(2.0), "energy_wh": None, "memory_mib": None},
    )
    assert found.seconds.typical == pytest.approx(2 * seconds().typical)
    assert found.counted["seconds"] == pytest.approx(seconds().typical)
    assert not any("as timed" in line for line in found.basis)


def test_money_and_energy_follow_and_the_basis_says_so():
    timed, plain = (
        estimate(TASK, CANDIDATE, FULL, GPU, difficulty=None, timing=each)
        for each in (TIMING, None)
    )
    ratio = timed.seconds.typical / plain.seconds.typical
    assert timed.money_usd.typical == pytest.approx(ratio * plain.money_usd.typical)
    assert timed.energy_wh.typical == pytest.approx(ratio * plain.energy_wh.typical)
    assert timed.memory_mib == plain.memory_mib
    assert (timed.timed, plain.timed) == (True, False)
    assert any("timed on this device" in line for line in timed.basis)
    assert not any("roofline" in line for line in timed.basis)


@pytest.mark.parametrize("numbers", [(0.0, 1.0, 2.0), (2.0, 1.0, 3.0), (1.0, 1.0, inf)])
def test_what_are_no_percentiles_is_refused(numbers):
    with pytest.raises(InvalidRequest, match="no spread"):
        Spread(*numbers)


def test_a_set_too_small_to_hold_anything_out_is_timed_too():
    few = TaskFacts(n_images=2, n_classes=2, complexity=None, label_kind="single_label")
    found = estimate(few, CANDIDATE, FULL, GPU, difficulty=None, timing=TIMING).seconds
    assert found.typical == pytest.approx(2 * 10 / 16 * 1.0)
