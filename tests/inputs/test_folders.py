from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import InvalidRequest
from app.inputs.pictures import Asked
from app.inputs.recognise import read_input
from tests.images import labelled_files, png
from tests.inputs.reading import intake, labels_of, taken, written


def splits(tmp_path: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        written(tmp_path / name, labelled_files(2, 3, seed))
    return tmp_path


def test_label_folders_go_as_they_are(tmp_path: Path) -> None:
    folder = written(tmp_path, labelled_files(2, 2))
    assert read_input([str(folder)]) == folder


def test_of_splits_that_hold_label_folders_train_is_used(tmp_path: Path) -> None:
    folder = splits(tmp_path, "train", "val", "test")
    found = taken(folder)
    assert intake(found)[1] == {"circle": 3, "square": 3}
    assert all(name.startswith("train/") for name in labels_of(found))
    assert found.name == f"{tmp_path.name}.zip"
    assert found.taken_for == (
        "a folder of label folders, split train (beside it: test, validation)"
    )


@pytest.mark.parametrize("asked", ["val", "valid", "validation"])
def test_a_split_goes_by_any_of_its_names(tmp_path: Path, asked: str) -> None:
    folder = splits(tmp_path, "train", "val")
    assert all(name.startswith("val/") for name in labels_of(taken(folder, split=asked)))


def test_all_splits_together_hold_every_image(tmp_path: Path) -> None:
    folder = splits(tmp_path, "train", "test")
    assert intake(taken(folder, split="all"))[1] == {"circle": 6, "square": 6}


def test_splits_without_train_must_be_chosen_from(tmp_path: Path) -> None:
    folder = splits(tmp_path, "val", "test")
    with pytest.raises(InvalidRequest, match="no split train") as told:
        taken(folder)
    assert "--split test or --split validation or --split all" in told.value.remedy


def test_only_what_is_no_image_of_the_split_is_told_of(tmp_path: Path) -> None:
    folder = splits(tmp_path, "train", "test")
    written(folder, {"README.md": "about", "train/notes.txt": "x", "train/loose.png": png()})
    found = taken(folder)
    assert len(labels_of(found)) == 6
    assert found.left_out == {"files of the split that are no image in a label's folder": 2}


def test_an_option_that_would_change_nothing_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, labelled_files(2, 2))
    with pytest.raises(InvalidRequest, match="--label-column changes nothing"):
        read_input([str(folder)], Asked(label_column="species"))
    with pytest.raises(InvalidRequest, match="--split changes nothing"):
        read_input([str(folder)], Asked(split="train"))
