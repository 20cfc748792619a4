"""The examples, run as their readers run them, against a service with its worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from task2vec import Task2Vec
from tests.images import labelled_files

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 900


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = {"TASK2VEC_DATA_DIR": str(tmp_path_factory.mktemp("data")), "TASK2VEC_THREADS": "1"}
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | settings
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets") / "shapes"
    for path, data in labelled_files(3, 8).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def run(address: str, *command: str) -> str:
    environment = os.environ | {"TASK2VEC_SERVER": address, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_starts_from_the_best_estimate_and_its_outcome_moves_the_estimates(
    address: str, folder: Path
) -> None:
    said = run(address, "examples/select_then_train.py", str(folder), "--installed")
    with Task2Vec(address) as service:
        task = service.task("shapes")
        (outcome,) = service.outcomes(task=task.id)
    assert f"shapes: 24 images of {task.counts.classes} classes" in said
    assert f"Start from {outcome.model}:" in said
    assert outcome.forecast is not None
    assert outcome.numbers["n_train"] == 20
    now = said.partition("What the estimates say now:\n")[2].splitlines()
    before, after = now[0].strip().split(" -> ")
    assert before.startswith(outcome.model)
    assert after not in before


def test_the_notebook_runs_from_its_first_cell_to_its_last(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = json.loads((ROOT / "examples" / "first_answers.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    monkeypatch.setenv("TASK2VEC_SERVER", address)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {}
    for cell in cells:
        exec(cell, names)
    assert names["run"].state == "succeeded"
    assert "digits-0-to-4: 100 images" in capsys.readouterr().out
    names["service"].close()
