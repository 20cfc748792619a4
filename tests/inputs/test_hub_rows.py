"""Parquet and Arrow as the library `datasets` itself wrote them (samples/write.py)."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from app.errors import InvalidRequest
from tests.images import drawing, encode, png
from tests.inputs.reading import SAMPLES, archive_of, intake, labels_of, taken

HUB = SAMPLES / "hub"
KINDS = {"circle": 4, "square": 4, "cross": 4}


def test_a_hub_layout_gives_its_train_split_under_the_names_of_its_features() -> None:
    found = taken(HUB)
    _, classes = intake(found)
    assert classes == KINDS
    assert found.name == "hub.zip"
    assert "split train (beside it: test)" in found.taken_for
    assert "2 Parquet files" in found.taken_for
    assert "image column image, label column label" in found.taken_for


@pytest.mark.parametrize(("split", "images"), [("train", 12), ("test", 3), ("all", 15)])
def test_a_split_is_chosen(split: str, images: int) -> None:
    assert len(labels_of(taken(HUB, split=split))) == images


def test_a_split_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(InvalidRequest, match="no split validation") as told:
        taken(HUB, split="val")
    assert "--split test or --split train or --split all" in told.value.remedy


def test_one_file_or_a_pattern_means_these_files() -> None:
    assert len(labels_of(taken(HUB / "data" / "test-00000-of-00001.parquet"))) == 3
    assert len(labels_of(taken(HUB / "data" / "train-0000{0..1}-of-00002.parquet"))) == 12
    assert len(labels_of(taken(HUB / "data" / "*.parquet"))) == 15


def test_a_saved_dataset_gives_the_same_images_as_its_parquet() -> None:
    saved = taken(SAMPLES / "saved")
    images, classes = intake(saved)
    assert classes == KINDS
    assert images.digests == intake(taken(HUB))[0].digests
    assert len(labels_of(taken(SAMPLES / "saved", split="test"))) == 3


def test_one_shard_of_a_saved_dataset_is_read_by_itself() -> None:
    found = taken(SAMPLES / "saved" / "test" / "data-00000-of-00001.arrow")
    assert intake(found)[1] == {"circle": 1, "square": 1, "cross": 1}


def test_the_same_files_give_the_same_bytes() -> None:
    assert archive_of(taken(HUB)) == archive_of(taken(HUB))


def test_several_labels_of_an_image_and_none_make_it_multi_label() -> None:
    found = taken(SAMPLES / "marks.parquet", image_column="photo")
    assert list(labels_of(found).values()) == [
        "circle",
        "square",
        "circle|square",
        "",
        "cross",
        "cross|circle",
    ]
    assert intake(found)[0].label_kind == "multi_label"


def test_of_two_columns_of_images_one_must_be_named() -> None:
    with pytest.raises(InvalidRequest, match="photo, mask could all hold images") as told:
        taken(SAMPLES / "marks.parquet")
    assert "--image-column" in told.value.remedy
    with pytest.raises(InvalidRequest, match="no column 'picture'; it has photo, mask, marks"):
        taken(SAMPLES / "marks.parquet", image_column="picture")
    with pytest.raises(InvalidRequest, match="'marks' holds List"):
        taken(SAMPLES / "marks.parquet", image_column="marks")


def parquet(path: Path, columns: dict[str, object], features: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    pl.DataFrame(columns).write_parquet(path, metadata=metadata)  # type: ignore[arg-type]
    return path


def image(seed: int, path: str | None = None) -> dict[str, object]:
    return {"bytes": encode(drawing("ring", seed, 24)), "path": path}


CLASSES = {"names": ["fine", "rotten"], "_type": "ClassLabel"}


def test_of_two_columns_of_classes_one_must_be_named(tmp_path: Path) -> None:
    """As CIFAR-100 has a fine and a coarse label."""
    features = {"image": {"_type": "Image"}, "fine": CLASSES, "coarse": CLASSES}
    columns = {"image": [image(0), image(1)], "fine": [0, 1], "coarse": [1, 0], "id": [7, 8]}
    path = parquet(tmp_path / "fruit.parquet", columns, features)
    with pytest.raises(InvalidRequest, match="fine, coarse could all hold labels"):
        taken(path)
    assert list(labels_of(taken(path, label_column="coarse")).values()) == ["rotten", "fine"]


def test_rows_without_label_or_bytes_are_left_out_and_told(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": CLASSES}
    images = [image(0, "a.jpg"), image(1), image(2), {"bytes": None, "path": "far/b.jpg"}, None]
    columns = {"image": images, "label": [0, -1, 1, 0, 1]}
    found = taken(parquet(tmp_path / "fruit.parquet", columns, features))
    assert labels_of(found) == {"fruit/000001.jpg": "fine", "fruit/000003": "rotten"}
    assert found.left_out == {
        "without a label": 1,
        "without bytes (the image lies elsewhere)": 1,
        "without an image": 1,
    }


def test_without_features_bytes_and_the_one_other_column_are_meant(tmp_path: Path) -> None:
    columns = {"img": [png("red"), png("blue")], "kind": [3, 4], "score": [0.5, 0.1]}
    found = taken(parquet(tmp_path / "plain.parquet", columns, {}))
    assert sorted(labels_of(found).values()) == ["3", "4"]


def test_of_several_configurations_a_folder_must_be_named(tmp_path: Path) -> None:
    for name in ("big", "small"):
        columns = {"image": [image(0), image(1)], "label": [0, 1]}
        parquet(tmp_path / name / "train-00000-of-00001.parquet", columns, {"label": CLASSES})
    with pytest.raises(InvalidRequest, match="Parquet files lie in big, small") as told:
        taken(tmp_path)
    assert f"{tmp_path}/small" in told.value.remedy
    assert len(labels_of(taken(tmp_path / "small"))) == 2


def test_a_damaged_file_is_named_and_nothing_of_it_is_taken(tmp_path: Path) -> None:
    whole = (HUB / "data" / "test-00000-of-00001.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-100])
    with pytest.raises(InvalidRequest, match=r"cut\.parquet cannot be read"):
        taken(tmp_path / "cut.parquet")
    (tmp_path / "hurt.parquet").write_bytes(whole[:200] + bytes(2000) + whole[2200:])
    with pytest.raises(InvalidRequest, match=r"hurt\.parquet cannot be read"):
        archive_of(taken(tmp_path / "hurt.parquet"))


def test_a_file_of_many_rows_is_never_held_as_a_whole(tmp_path: Path) -> None:
    from app.inputs import hub_rows

    columns = {"image": [image(0)] * 1000, "label": [0, 1] * 500}
    path = parquet(tmp_path / "many.parquet", columns, {"label": CLASSES})
    batches = list(hub_rows._parquet_batches(path, ["image", "label"]))
    assert sum(batch.height for batch in batches) == 1000
    assert max(batch.height for batch in batches) <= 2 * hub_rows._ROWS_AT_A_TIME
