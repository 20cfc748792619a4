"""A candidate is really trained, ends when it should, and goes on after whatever stopped it."""

from __future__ import annotations

import errno
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from app.catalogue import Weights
from app.cost.features import TaskFacts, split
from app.embedding.pretrained import pretrained
from app.errors import Conflict, InvalidRequest, Unavailable
from app.training import checkpoint, finetune
from app.training.finetune import CHECKPOINT, Limits
from tests.training.runs import FULL, HEAD, candidate, hues, run


class Killed(Exception):
    pass


def kill_at(step: int):
    def on_step(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return on_step


def weights(found) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in found.network.state_dict().values()])


@pytest.mark.parametrize(
    "recipe", [FULL, HEAD, HEAD.model_copy(update={"features_cached": False, "epochs": 10})]
)
def test_it_learns_what_it_is_shown(recipe, tmp_path: Path) -> None:
    found = run(tmp_path, recipe)
    assert found.ended == "recipe"
    assert len(found.curve) == recipe.epochs
    assert found.curve[-1].training_loss < 0.8 * found.curve[0].training_loss
    assert found.verdict.accuracy > 0.6
    assert found.verdict.accuracy == pytest.approx(found.curve[-1].accuracy)
    assert (found.n_train, found.n_held_out, found.verdict.images) == (66, 24, 24)
    assert found.steps == recipe.epochs * 5


def test_several_labels_an_image(tmp_path: Path) -> None:
    found = run(tmp_path, images=hues(multi_label=True))
    assert found.verdict.confusion is None
    assert found.verdict.accuracy > 0.75
    assert [each.name for each in found.verdict.classes] == ["red", "green", "blue", "light"]


@pytest.mark.parametrize("cached", [True, False])
def test_the_head_alone_leaves_the_network_as_it_was(cached: bool, tmp_path: Path) -> None:
    recipe = HEAD.model_copy(update={"features_cached": cached, "epochs": 2})
    found = run(tmp_path, recipe).network.state_dict()
    start = load_file(tmp_path / "test_resnet.safetensors")
    changed = {
        name for name in found if not torch.equal(found[name], start.get(name, torch.empty(0)))
    }
    assert changed == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    "recipe", [FULL, HEAD.model_copy(update={"epochs": 4})], ids=["full", "head"]
)
@pytest.mark.parametrize("step", [1, 10, 12])
def test_a_killed_run_ends_as_one_that_was_not(recipe, step: int, tmp_path: Path) -> None:
    """In an epoch, at its last step, and in the first one, which has no checkpoint."""
    whole = run(tmp_path, recipe, into="whole")
    with pytest.raises(Killed):
        run(tmp_path, recipe, on_step=kill_at(step))
    heard = []
    resumed = run(tmp_path, recipe, on_epoch=lambda epoch: heard.append(epoch.number))
    assert torch.equal(weights(whole), weights(resumed))
    assert heard == [number for number in (1, 2, 3, 4) if number * 5 >= step]
    told = [(e.number, e.steps, e.training_loss, e.loss, e.accuracy) for e in whole.curve]
    assert told == [(e.number, e.steps, e.training_loss, e.loss, e.accuracy) for e in resumed.curve]
    assert resumed.verdict == whole.verdict


def test_seeds_tell_runs_apart_and_reproduce_them(tmp_path: Path) -> None:
    first, again, other = (
        run(tmp_path, into=name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_what_other_threads_draw_and_load_changes_nothing(tmp_path: Path) -> None:
    card = candidate(tmp_path)
    brief = FULL.model_copy(update={"epochs": 2})
    alone = weights(run(tmp_path, brief, into="alone", start=card))
    over = threading.Event()

    def meddle() -> None:
        while not over.is_set():
            random.random()
            pretrained(card.network, card.weights, card.input_size, "test")

    with ThreadPoolExecutor(1) as others:
        meddling = others.submit(meddle)
        beside = weights(run(tmp_path, brief, into="beside", start=card))
        over.set()
        meddling.result()
    assert torch.equal(alone, beside)


def test_a_target_that_is_reached_ends_the_run(tmp_path: Path) -> None:
    found = run(tmp_path, limits=Limits(target=0.34), recipe=FULL.model_copy(update={"epochs": 30}))
    assert found.ended == "target"
    assert len(found.curve) < 30
    assert found.curve[-1].accuracy >= 0.34
    assert all(epoch.accuracy < 0.34 for epoch in found.curve[:-1])


def test_patience_keeps_the_epoch_with_the_lowest_loss(tmp_path: Path) -> None:
    wild = FULL.model_copy(update={"learning_rate": 0.3, "epochs": 40, "schedule": "constant"})
    found = run(tmp_path, wild, limits=Limits(patience=3))
    assert found.ended == "patience"
    losses = [epoch.loss for epoch in found.curve]
    assert found.judged_epoch == losses.index(min(losses)) + 1 == len(losses) - 3
    assert found.verdict.log_loss == pytest.approx(min(losses), rel=1e-5, abs=1e-7)


def test_a_budget_ends_the_run_within_a_step_and_with_a_verdict(tmp_path: Path) -> None:
    seen = []
    found = run(
        tmp_path,
        FULL.model_copy(update={"epochs": 10_000}),
        limits=Limits(seconds=1.0),
        on_step=lambda done, total: seen.append((done, total)),
    )
    assert found.ended == "budget"
    assert found.seconds >= 1.0
    assert seen[-1] == (found.steps, 50_000)
    assert found.verdict.images == 24
    again = run(tmp_path, FULL.model_copy(update={"epochs": 10_000}), limits=Limits(seconds=1.0))
    assert again.steps == found.steps, "nothing is left of the budget"


def test_a_budget_that_does_not_last_for_the_features_ends_them(tmp_path: Path) -> None:
    heard = []
    short = {"limits": Limits(seconds=1e-6), "on_features": lambda *told: heard.append(told)}
    with pytest.raises(InvalidRequest, match=r"The budget of 1e-06 s was .* 16 of 90") as refused:
        run(tmp_path, HEAD, **short)
    assert refused.value.code == "budget-too-small"
    assert re.fullmatch(r"Give more than \d+ s\.", refused.value.remedy)
    assert heard == []
    with pytest.raises(Killed):
        run(tmp_path, HEAD, on_step=kill_at(12))
    found = run(tmp_path, HEAD, **short)
    assert (found.ended, len(found.curve)) == ("budget", 2), "what there is of it is its result"


def test_another_runs_checkpoint_is_never_taken_up(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, on_step=kill_at(7))
    with pytest.raises(Conflict, match="folder of its own"):
        run(tmp_path, seed=1)
    assert run(tmp_path).ended == "recipe"


def test_a_full_disk_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path, into="whole")
    real, saved = torch.save, []

    def save(state, file) -> None:
        saved.append(state)
        if len(saved) == 3:
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(state, file)

    monkeypatch.setattr(checkpoint.torch, "save", save)
    with pytest.raises(Unavailable, match="Make room"):
        run(tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [CHECKPOINT]
    heard = []
    resumed = run(tmp_path, on_step=lambda done, _: heard.append(done))
    assert heard[0] == 11
    assert torch.equal(weights(whole), weights(resumed))


def test_what_cannot_be_run_is_said_before_it_is_tried(tmp_path: Path) -> None:
    start = candidate(tmp_path)
    described = start.model_copy(update={"weights": Weights(source="none")})
    with pytest.raises(Unavailable, match="names no weights"):
        run(tmp_path, start=described)
    with pytest.raises(InvalidRequest, match="candidate's input size"):
        run(tmp_path, start=start.model_copy(update={"input_size": 64}))
    with pytest.raises(InvalidRequest, match=r"write 85% as 0\.85"):
        run(tmp_path, limits=Limits(target=85))
    with pytest.raises(InvalidRequest, match="more than none"):
        run(tmp_path, limits=Limits(seconds=0))
    with pytest.raises(InvalidRequest, match="evaluation_share"):
        run(tmp_path, FULL.model_copy(update={"evaluation_share": 0.0}))


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_layers_near_the_input_learn_slower_where_the_recipe_says_so(
    schedule: str, tmp_path: Path
) -> None:
    """The discriminative rates of ULMFiT, by timm's layer decay."""
    once = FULL.model_copy(update={"epochs": 1, "schedule": schedule})
    plain = run(tmp_path, once, into="plain")
    decayed = run(tmp_path, once.model_copy(update={"layer_decay": 0.1}), into="decayed")
    start = load_file(tmp_path / "test_resnet.safetensors")
    name = next(name for name, value in start.items() if value.ndim == 4)

    def moved(found) -> float:
        return float((found.network.state_dict()[name] - start[name]).norm())

    assert moved(decayed) < 0.2 * moved(plain)


def test_a_target_that_is_reached_is_what_the_result_reaches(tmp_path: Path) -> None:
    """Whatever epoch had the lowest loss."""
    wild = FULL.model_copy(update={"learning_rate": 0.1, "epochs": 60, "schedule": "constant"})
    found = run(tmp_path, wild, limits=Limits(target=0.6, patience=50))
    assert found.ended == "target"
    assert found.judged_epoch == len(found.curve)
    assert found.verdict.accuracy >= 0.6


def test_a_run_whose_loss_is_no_number_says_so(tmp_path: Path) -> None:
    wild = FULL.model_copy(
        update={"learning_rate": 1000.0, "optimiser": "sgd", "schedule": "constant", "epochs": 20}
    )
    with pytest.raises(InvalidRequest, match="lower learning rate"):
        run(tmp_path, wild)


def test_a_trace_looks_at_every_class_of_a_set_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "TRACED_IMAGES", 9)
    images = hues()
    order = np.argsort(images.labels, kind="stable")
    images = replace(
        images,
        pixels=images.pixels[order],
        labels=images.labels[order],
        digests=tuple(images.digests[row] for row in order),
    )
    seen: list[str] = []
    real = finetune.information

    def listen(network, batches, *rest, **more):
        batches = list(batches)
        seen.extend(digest for _, digests in batches for digest in digests)
        return real(network, batches, *rest, **more)

    monkeypatch.setattr(finetune, "information", listen)
    run(tmp_path, FULL.model_copy(update={"epochs": 1}), images=images, trace_every=1)
    labels = [images.labels[images.digests.index(digest)] for digest in seen]
    assert sorted(labels) == [0] * 3 + [1] * 3 + [2] * 3


def test_the_features_of_a_network_are_computed_within_earshot(tmp_path: Path) -> None:
    heard = []
    run(tmp_path, HEAD, on_features=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (90, 90)
    assert len(heard) == 6


def test_a_small_set_is_trained_on_in_as_many_steps_as_are_counted(tmp_path: Path) -> None:
    recipe = FULL.model_copy(update={"batch_size": 64, "least_steps_an_epoch": 5, "epochs": 2})
    found = run(tmp_path, recipe)
    facts = TaskFacts(90, 3, None, "single_label")
    assert found.steps == split(facts, recipe).steps == 2 * 6


def test_information_is_traced_when_it_is_asked_for(tmp_path: Path) -> None:
    found = run(tmp_path, trace_every=2)
    assert [epoch.information is not None for epoch in found.curve] == [True, True, False, True]
    assert set(found.traces) == {1, 2, 4}
    untraced = run(tmp_path, into="untraced")
    assert torch.equal(weights(found), weights(untraced)), "looking changes nothing"
