"""What a run is made of: its split, its verdict, and the information in its weights."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from sklearn.metrics import confusion_matrix, log_loss, precision_score, recall_score
from torch import nn

from app.embedding.directions import logit_directions
from app.embedding.regression import softmax
from app.errors import InvalidRequest
from app.training.information import information
from app.training.split import split_rows
from app.training.verdict import verdict


def digests(n: int) -> list[str]:
    return [f"{number:064x}" for number in range(n)]


def test_a_split_takes_its_share_of_every_class_and_goes_by_the_images() -> None:
    labels = np.repeat([0, 1, 2, 3], [40, 10, 2, 1])
    train, held = split_rows(labels, digests(53), 0.2, seed=3)
    assert sorted([*train, *held]) == list(range(53))
    assert np.bincount(labels[held], minlength=4).tolist() == [8, 2, 1, 0]
    order = np.random.default_rng(0).permutation(53)
    _, shuffled = split_rows(labels[order], [digests(53)[row] for row in order], 0.2, seed=3)
    assert sorted(order[shuffled]) == held.tolist()
    assert split_rows(labels, digests(53), 0.2, seed=4)[1].tolist() != held.tolist()


def test_a_split_of_several_labels_is_one_of_images() -> None:
    labels = np.random.default_rng(0).random((20, 3)) < 0.5
    train, held = split_rows(labels, digests(20), 0.25, seed=0)
    assert (len(train), len(held)) == (15, 5)


@pytest.mark.parametrize(("labels", "share"), [([0, 0, 1, 1], 0.0), ([0, 1, 2], 0.5)])
def test_a_split_that_holds_nothing_out_is_refused(labels: list[int], share: float) -> None:
    with pytest.raises(InvalidRequest, match="two images of a class"):
        split_rows(np.array(labels), digests(len(labels)), share, seed=0)


def test_a_verdict_is_scikit_learns() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, 80)
    p = softmax(random.normal(size=(80, 4)) + 2 * np.eye(4)[labels])
    found, chosen = verdict(p, labels, "abcd"), p.argmax(axis=1)
    assert found.accuracy == (chosen == labels).mean()
    assert found.interval[0] < found.accuracy < found.interval[1]
    assert found.confusion == tuple(map(tuple, confusion_matrix(labels, chosen, labels=range(4))))
    assert found.log_loss == pytest.approx(log_loss(labels, p, labels=range(4)))
    asked = {"labels": range(4), "average": None, "zero_division": 0}
    recalls = [each.recall for each in found.classes]
    assert recalls[3] is None, "no image of the fourth was held out"
    recalls[3] = 0.0
    precisions = [each.precision or 0.0 for each in found.classes]
    np.testing.assert_allclose(recalls, recall_score(labels, chosen, **asked))
    np.testing.assert_allclose(precisions, precision_score(labels, chosen, **asked))


def test_a_verdict_on_several_labels() -> None:
    labels = np.array([[True, False], [True, True], [False, False], [False, True]])
    p = np.array([[0.9, 0.2], [0.4, 0.7], [0.1, 0.6], [0.2, 0.8]])
    found = verdict(p, labels, ["a", "b"])
    assert found.accuracy == 6 / 8
    assert [each.recall for each in found.classes] == [0.5, 1.0]
    assert [each.precision for each in found.classes] == [1.0, 2 / 3]
    expected = -np.log(np.where(labels, p, 1 - p)).mean()
    assert found.log_loss == pytest.approx(expected)


def test_calibration_is_how_far_confidence_lies_from_being_right() -> None:
    """Ten images at 0.9, of which seven are right; ten at 0.6, of which six are."""
    p = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 7 + [1] * 3 + [0] * 6 + [1] * 4)
    assert verdict(p, labels, "ab").calibration == pytest.approx(0.1)


@pytest.mark.parametrize("network", ["test_resnet", "test_efficientnet", "test_vit"])
def test_information_is_the_squared_gradient_of_every_filter(network: str) -> None:
    torch.manual_seed(0)
    options = {"img_size": 32} if network == "test_vit" else {}
    model = timm.create_model(network, num_classes=3, **options).double().train()
    inputs, names = torch.randn(4, 3, 32, 32, dtype=torch.float64), digests(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = information(
        model, [(inputs[:3], names[:3]), (inputs[3:], names[3:])], "single_label", seed=5, draws=2
    )
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    model.eval()
    expected = dict.fromkeys(found.layers, 0.0)
    for index in range(2):
        logits = model(inputs)
        p = softmax(logits.detach().numpy())
        v = torch.from_numpy(logit_directions("hutchinson", "single_label", p, names, 5, index))
        for image in range(4):
            model.zero_grad()
            (model(inputs[image : image + 1]) * v[image]).sum().backward()
            for name, module in model.named_modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    expected[name] += float(module.weight.grad.square().sum()) / 8
    assert not found.left_out
    assert found.layers == pytest.approx(expected, rel=1e-6)
    assert found.total == pytest.approx(sum(expected.values()), rel=1e-6)


def test_layers_that_do_not_run_image_by_image_are_left_out_and_named() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.halves, self.last = nn.Linear(4, 4), nn.Linear(2, 2), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x.mean((2, 3)))
            return self.last(self.halves(x.reshape(-1, 2)).reshape(-1, 4))

    found = information(Windows(), [(torch.randn(5, 4, 2, 2), digests(5))], "single_label", seed=0)
    assert found.left_out == ("halves",)
    assert set(found.layers) == {"first", "last"}
    assert found.total > 0
