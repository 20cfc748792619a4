"""hf:// by the hub's own file system, against a stand-in on this machine.

In processes of their own: the hub's client reads HF_ENDPOINT once.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.errors import InvalidRequest
from app.inputs.recognise import read_input
from tests.images import labelled_files
from tests.inputs.hub import hub
from tests.inputs.reading import SAMPLES, archive_of, taken, written

SHOW = """
import hashlib, json, sys
from app.errors import Task2VecError
from app.inputs.pictures import Asked
from app.inputs.recognise import read_input

def show(uri, **asked):
    try:
        found = read_input([uri], Asked(**asked))
        with found.open() as archive:
            digest = hashlib.sha256(archive.read()).hexdigest()
    except Task2VecError as error:
        return {"code": error.code, "said": str(error)}
    return {"name": found.name, "taken_for": found.taken_for, "digest": digest}

print(json.dumps([show(each.pop("uri"), **each) for each in json.loads(sys.argv[1])]))
"""


def shown(
    tmp_path: Path, endpoint: str, *asked: dict[str, str], **more: str
) -> list[dict[str, Any]]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "home"),
        **more,
    }
    ended = subprocess.run(
        [sys.executable, "-c", SHOW, json.dumps(asked)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    answers: list[dict[str, Any]] = json.loads(ended.stdout.splitlines()[-1])
    return answers


def digest(archive: bytes) -> str:
    return hashlib.sha256(archive).hexdigest()


def test_datasets_of_the_hub_give_what_their_files_give_here(tmp_path: Path) -> None:
    folders = written(tmp_path / "folders", {"README.md": "about"})
    for split in ("train", "test"):
        written(folders / split, labelled_files(2, 2, size=24))
    datasets = {"o/shapes": SAMPLES / "hub", "o/folders": folders, "o/wds": SAMPLES / "webdataset"}
    with hub(datasets) as (endpoint, asked):
        train, test, plain, shards, absent = shown(
            tmp_path,
            endpoint,
            {"uri": "hf://datasets/o/shapes"},
            {"uri": "hf://datasets/o/shapes@main/data", "split": "test"},
            {"uri": "hf://datasets/o/folders"},
            {"uri": "hf://datasets/o/wds", "label_column": "shape"},
            {"uri": "hf://datasets/o/absent"},
        )
    assert train["digest"] == digest(archive_of(taken(SAMPLES / "hub")))
    assert train["name"] == test["name"] == "shapes.zip"
    assert test["digest"] == digest(archive_of(taken(SAMPLES / "hub", split="test")))
    assert plain["digest"] == digest(archive_of(taken(folders)))
    expected = taken(SAMPLES / "webdataset", label_column="shape")
    assert (shards["taken_for"], shards["digest"]) == (
        expected.taken_for,
        digest(archive_of(expected)),
    )
    assert absent["code"] == "hub-not-found"
    assert "hf auth login" in absent["said"]
    # A split's shards alone are fetched, each once, though the first was looked at before.
    shapes = "GET /datasets/o/shapes/resolve/main/data"
    assert [each for each in asked if each.startswith("GET /datasets/o/shapes")] == [
        f"{shapes}/train-00000-of-00002.parquet",
        f"{shapes}/train-00001-of-00002.parquet",
        f"{shapes}/test-00000-of-00001.parquet",
    ]


def test_without_a_network_it_is_told_what_to_do(tmp_path: Path) -> None:
    dataset = {"uri": "hf://datasets/o/shapes"}
    (offline,) = shown(tmp_path, "http://127.0.0.1:9", dataset, HF_HUB_OFFLINE="1")
    (nobody,) = shown(tmp_path, "http://127.0.0.1:9", dataset)
    assert offline["code"] == nobody["code"] == "hub-unreachable"
    assert "give a folder with the dataset's files" in nobody["said"]


@pytest.mark.parametrize("uri", ["hf://o/shapes", "hf://datasets/o", "hf://models/o/shapes"])
def test_what_names_no_dataset_is_refused(uri: str) -> None:
    with pytest.raises(InvalidRequest, match="names no dataset"):
        read_input([uri])


def test_without_the_hubs_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.errors import Unavailable

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(Unavailable, match=r"task2vec-service\[hub\]"):
        read_input(["hf://datasets/o/shapes"])
