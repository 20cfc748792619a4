from __future__ import annotations

import pytest
import torch

from app.catalogue import CandidateCard
from app.cost.timing import Timing
from app.errors import InvalidRequest, Unavailable
from app.training import steps
from app.training.steps import LEAST_STEPS, WARM_UP, time_steps
from tests.cost.cards import CANDIDATE

SMALL = CANDIDATE.model_copy(update={"network": "test_resnet", "input_size": 32})
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def timed(device: str = "cpu", candidate: CandidateCard = SMALL, **asked) -> Timing:
    precision = asked.pop("precision", "fp32")
    return time_steps(candidate, torch.device(device), precision, batch_size=4, **asked)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_a_training_step_takes_longer_than_a_forward_pass(device: str, precision: str) -> None:
    found = timed(device, precision=precision, steps=15)
    assert found.batch_size == 4
    assert found.step_seconds.typical > found.forward_seconds.typical


def test_progress_counts_every_batch_and_those_that_do_not_count() -> None:
    told: list[tuple[int, int]] = []
    timed(steps=6, on_step=lambda done, total: told.append((done, total)))
    total = 2 * (WARM_UP + 6)
    assert told == [(done, total) for done in range(1, total + 1)]


def test_once_the_time_is_over_a_few_steps_are_enough() -> None:
    told: list[int] = []
    timed(steps=1_000, most_seconds=0.0, on_step=lambda done, _: told.append(done))
    assert len(told) == 2 * (WARM_UP + LEAST_STEPS)


def test_a_batch_that_memory_does_not_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(steps, "_images", fails)
    with pytest.raises(Unavailable, match="smaller batch"):
        timed()


def test_weights_move_and_the_same_batch_is_learnt() -> None:
    torch.manual_seed(0)
    network = steps._network(SMALL)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    batches = steps._training(network, SMALL, torch.device("cpu"), "fp32", 4)
    for _ in range(3):
        next(batches)
    assert network.training
    assert all((a != b).any() for a, b in zip(before, network.parameters(), strict=True))


def test_a_transformer_takes_images_of_the_cards_size() -> None:
    vit = CANDIDATE.model_copy(update={"network": "test_vit", "input_size": 96})
    assert timed(candidate=vit, steps=5).step_seconds.low > 0


def test_a_network_that_timm_does_not_know_is_refused() -> None:
    unknown = CANDIDATE.model_copy(update={"network": "alexnet2000"})
    with pytest.raises(InvalidRequest, match="alexnet2000"):
        timed(candidate=unknown)
