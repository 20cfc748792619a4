"""What the service says before anybody has reported an outcome."""

from __future__ import annotations

import pytest

from app.catalogue import CandidateCard, load_cards
from app.cost.estimator import AccuracyEstimator, Question
from app.cost.predictor import Interval
from app.settings import shared_directory
from app.store import estimators

MODELS = shared_directory("models")
CARDS = load_cards(MODELS, CandidateCard)


@pytest.fixture(scope="module")
def accuracy() -> AccuracyEstimator:
    finished = estimators.shipped(MODELS).finished()
    assert finished is not None
    return AccuracyEstimator(finished)


def told(
    accuracy: AccuracyEstimator, recipe: str = "full", probe_accuracy: float | None = 0.8
) -> dict[str, Interval]:
    published = {
        name: None if card.top1_percent is None else card.top1_percent / 100
        for name, card in CARDS.items()
    }
    return accuracy.forecast(Question("new", recipe, "accuracy", published, probe_accuracy))


def test_only_candidates_with_cards_are_learnt_from() -> None:
    runs = estimators.shipped(MODELS).runs
    assert set(runs["model"]) == {f"tf_efficientnet_lite{n}.in1k" for n in (0, 1, 2)}
    assert runs["task"].n_unique() >= 15
    assert runs["probe_accuracy"].null_count() == 0


@pytest.mark.parametrize("recipe", ["full", "head_only", "full_long"])
def test_every_candidate_with_a_published_accuracy_is_told_and_none_is_certain(
    accuracy: AccuracyEstimator, recipe: str
) -> None:
    found = told(accuracy, recipe)
    assert set(found) == {n for n, card in CARDS.items() if card.top1_percent is not None}
    assert {interval.kind for interval in found.values()} == {"uncalibrated_range"}
    assert all(0.1 < i.high - i.low < 0.9 for i in found.values())
    assert found["convnext_base.fb_in22k_ft_in1k"].typical > found["resnet18.a1_in1k"].typical


def test_a_task_that_the_probe_finds_easy_is_easy(accuracy: AccuracyEstimator) -> None:
    easy, hard = (told(accuracy, probe_accuracy=share)["resnet50.a1_in1k"] for share in (0.95, 0.4))
    assert easy.typical > 0.85
    assert hard.typical < 0.65
    unknown = told(accuracy, probe_accuracy=None)["resnet50.a1_in1k"]
    assert unknown.high - unknown.low > easy.high - easy.low
