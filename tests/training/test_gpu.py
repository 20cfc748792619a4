"""A run on a GPU: in mixed precision from end to end, and taken up again where it was broken off."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from app.training.finetune import Run
from app.training.model import read_model
from app.training.package import write_package
from tests.training.runs import FULL, HEAD, candidate, hues, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU"),
]
CUDA = torch.device("cuda")


class Killed(Exception):
    pass


def kill_at_step_12(done: int, _: int) -> None:
    if done == 12:
        raise Killed


def told(found: Run) -> list[list[float]]:
    return [[e.training_loss, e.loss, e.accuracy] for e in found.curve]


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@pytest.mark.parametrize("recipe", [FULL, HEAD], ids=["full", "head"])
def test_it_learns_in_mixed_precision_and_is_timed(recipe, precision: str, tmp_path: Path) -> None:
    found = run(tmp_path, recipe, device=CUDA, precision=precision, trace_every=2)
    assert found.ended == "recipe"
    assert found.curve[-1].training_loss < 0.8 * found.curve[0].training_loss
    assert found.verdict.accuracy > 0.6
    assert found.seconds == pytest.approx(found.curve[-1].seconds, abs=5)
    assert 0 < found.curve[0].seconds < found.curve[-1].seconds <= found.seconds
    assert found.memory_mib > 0
    assert all(trace.total > 0 for trace in found.traces.values())
    images = hues()
    write_package(
        tmp_path / "run",
        found,
        candidate(tmp_path),
        recipe,
        images.classes,
        images.label_kind,
        task="hues",
    )
    kept = read_model(tmp_path / "run").network.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in found.network.state_dict().items())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    "recipe", [FULL, HEAD.model_copy(update={"epochs": 4})], ids=["full", "head"]
)
def test_a_killed_run_ends_as_one_that_was_not(recipe, precision: str, tmp_path: Path) -> None:
    """Of so small a network bit for bit; of larger ones a GPU's sums have no fixed order."""
    asked = {"device": CUDA, "precision": precision}
    whole = run(tmp_path, recipe, into="whole", **asked)
    with pytest.raises(Killed):
        run(tmp_path, recipe, on_step=kill_at_step_12, **asked)
    resumed = run(tmp_path, recipe, **asked)
    assert resumed.steps == whole.steps
    for ours, theirs in zip(told(whole), told(resumed), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
