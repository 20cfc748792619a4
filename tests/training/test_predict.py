"""A run's model is read back and says of images what it said of those that judged it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from app.catalogue import CandidateCard, Weights
from app.embedding.dataset import LabelledImages
from app.errors import Cancelled, InvalidRequest, Unavailable
from app.training.finetune import Run
from app.training.images import plain_transform
from app.training.model import read_model
from app.training.package import write_package
from app.training.predict import predict
from app.training.split import split_rows
from app.training.verdict import verdict
from tests.training.runs import FULL, HEAD, candidate, hues, run

CPU = torch.device("cpu")


def packed(directory: Path, recipe=FULL, images: LabelledImages | None = None) -> tuple[Run, Path]:
    """A run, and the folder that holds what it left."""
    images = images or hues()
    found = run(directory, recipe, images=images)
    into = directory / "run"
    write_package(
        into, found, candidate(directory), recipe, images.classes, images.label_kind, task="hues"
    )
    return found, into


def registered(directory: Path, folder: Path) -> CandidateCard:
    """The run's model as a candidate."""
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    weights = Weights(source=f"run:{'0' * 32}", sha256=digest)
    return candidate(directory).model_copy(update={"name": "child", "weights": weights})


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("recipe", [FULL, HEAD.model_copy(update={"epochs": 3})])
def test_the_held_out_images_give_the_runs_verdict_again(
    recipe, multi_label: bool, tmp_path: Path
) -> None:
    images = hues(multi_label=multi_label)
    found, folder = packed(tmp_path, recipe, images)
    model = read_model(folder)
    assert (model.classes, model.label_kind) == (images.classes, images.label_kind)
    _, held_out = split_rows(images.labels, images.digests, recipe.evaluation_share, 0)
    batches = predict(model, images.pixels[held_out], device=CPU, batch_size=7)
    again = verdict(np.concatenate(list(batches)), images.labels[held_out], images.classes)
    assert again.accuracy == found.verdict.accuracy
    assert again.confusion == found.verdict.confusion
    assert again.log_loss == pytest.approx(found.verdict.log_loss, rel=1e-4)
    assert again.calibration == pytest.approx(found.verdict.calibration, abs=1e-4)
    assert asdict(again)["classes"] == asdict(found.verdict)["classes"]


def test_progress_is_told_batch_by_batch_and_may_end_the_work(tmp_path: Path) -> None:
    model = read_model(packed(tmp_path, FULL.model_copy(update={"epochs": 1}))[1])
    heard: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        heard.append((done, total))
        if done == 20:
            raise Cancelled("job-cancelled", "Taken back.", "")

    with pytest.raises(Cancelled):
        list(predict(model, hues(40).pixels, device=CPU, batch_size=10, on_images=stop))
    assert heard == [(10, 40), (20, 40)]


def test_a_model_normalises_as_it_was_trained_whatever_its_architecture_does(
    tmp_path: Path,
) -> None:
    _, folder = packed(tmp_path, FULL.model_copy(update={"epochs": 1}))
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}
    (folder / "config.json").write_text(json.dumps(config))
    white = np.full((1, 32, 32, 3), 255, dtype=np.uint8)
    transform = plain_transform(read_model(folder).network, 32)
    assert transform(Image.fromarray(white[0]))[:, 0, 0].tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_a_candidate_goes_on_from_the_model_it_is_with_a_classifier_of_its_own(
    tmp_path: Path,
) -> None:
    _, folder = packed(tmp_path)
    child = registered(tmp_path, folder)
    still = FULL.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0, "epochs": 1})
    found = run(
        tmp_path, still, images=hues(multi_label=True), start=child, model=folder, into="next"
    )
    before = load_file(folder / "model.safetensors")
    after = found.network.state_dict()
    assert before["fc.weight"].shape[0] == 3
    assert after["fc.weight"].shape[0] == 4
    weights = [name for name in before if name.endswith("weight") and name != "fc.weight"]
    assert weights
    assert all(torch.equal(before[name], after[name]) for name in weights)


def test_weights_that_are_not_the_cards_are_refused(tmp_path: Path) -> None:
    _, folder = packed(tmp_path, FULL.model_copy(update={"epochs": 1}))
    child = registered(tmp_path, folder)
    other = child.model_copy(
        update={"weights": child.weights.model_copy(update={"sha256": "0" * 64})}
    )
    with pytest.raises(InvalidRequest, match="has sha256"):
        run(tmp_path, start=other, model=folder, into="next")
    with pytest.raises(Unavailable, match="fine-tuning run"):
        run(tmp_path, start=child, into="next")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_model_that_is_not_whole_says_so(file: str, damage: str, tmp_path: Path) -> None:
    _, folder = packed(tmp_path, FULL.model_copy(update={"epochs": 1}))
    if damage == "gone":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes((folder / file).read_bytes()[:20])
    with pytest.raises(Unavailable, match="not there, or not whole"):
        read_model(folder)
