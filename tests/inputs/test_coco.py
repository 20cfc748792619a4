"""Annotations as COCO lays them out: annotations/instances_SPLIT.json beside a folder of images."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import InvalidRequest
from app.inputs.recognise import read_input
from tests.images import encode, labelled_files, png
from tests.inputs.reading import archive_of, files_of, intake, labels_of, taken, written

CATEGORIES = [{"id": 3, "name": "bicycle", "supercategory": "vehicle"}, {"id": 17, "name": "cat"}]


def photo(seed: int, width: int = 80, height: int = 60) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def box(number: int, image: int, category: int, *bbox: float, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(bbox),
        "area": bbox[2] * bbox[3],
        "iscrowd": crowd,
        "segmentation": [[0, 0, 1, 1]],
    }


BOXES = [
    box(10, 2, 17, 10.4, 5.0, 30.2, 40.0),
    box(11, 1, 3, 0, 0, 20, 20),
    box(12, 1, 17, 60, 40, 40, 40),  # reaches out of the image: 20 x 20 lie within
    box(13, 1, 17, 5, 5, 15, 40),  # too narrow
    box(14, 1, 3, 0, 0, 80, 60, crowd=1),
    box(15, 2, 3, 70, 50, 30, 30),  # 10 x 10 within
    box(16, 9, 3, 0, 0, 30, 30),  # of an image that is not there
]


def coco(tmp_path: Path, **changes: Any) -> Path:
    images = [
        {"id": 1, "file_name": "a.png", "width": 80, "height": 60},
        {"id": 2, "file_name": "b.png", "width": 80, "height": 60},
        {"id": 3, "file_name": "c.png", "width": 80, "height": 60},
        {"id": 9, "file_name": "gone.png", "width": 80, "height": 60},
    ]
    document = {"images": images, "annotations": BOXES, "categories": CATEGORIES} | changes
    files: dict[str, bytes | str] = {
        f"val2017/{name}.png": encode(photo(seed)) for seed, name in enumerate("abc")
    }
    files["annotations/instances_val2017.json"] = json.dumps(document)
    return written(tmp_path, files)


def test_every_box_is_a_picture_of_its_category(tmp_path: Path) -> None:
    found = taken(coco(tmp_path))
    assert labels_of(found) == {"a-11.png": "bicycle", "a-12.png": "cat", "b-10.png": "cat"}
    assert intake(found)[1] == {"bicycle": 1, "cat": 2}


def test_a_picture_holds_its_box_exactly(tmp_path: Path) -> None:
    files = files_of(taken(coco(tmp_path)))
    shown = np.asarray(Image.open(io.BytesIO(files["b-10.png"])))
    # Where a box ends between two pixels, the pixel is within.
    assert np.array_equal(shown, np.asarray(photo(1))[5:45, 10:41])
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(files["a-12.png"]))), np.asarray(photo(0))[40:, 60:]
    )


def test_crowds_and_small_boxes_are_left_out_and_told(tmp_path: Path) -> None:
    found = taken(coco(tmp_path))
    labels_of(found)
    assert found.left_out == {
        "boxes less than 16 pixels wide or high": 2,
        "boxes of crowds": 1,
        "boxes of images that are not there": 1,
    }
    assert "boxes of 16 pixels and more" in found.taken_for


def test_multi_label_takes_whole_images_with_the_set_of_their_categories(tmp_path: Path) -> None:
    found = taken(coco(tmp_path), label_kind="multi_label")
    assert labels_of(found) == {"a.png": "bicycle|cat", "b.png": "bicycle|cat", "c.png": ""}
    assert files_of(found)["a.png"] == encode(photo(0))
    assert found.left_out == {"images that are not there": 1}


def test_the_file_of_annotations_finds_its_images_and_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = coco(tmp_path)
    named = taken(folder / "annotations" / "instances_val2017.json")
    assert archive_of(named) == archive_of(taken(folder))


def test_of_several_annotations_that_of_train_is_used(tmp_path: Path) -> None:
    folder = coco(tmp_path)
    document = (folder / "annotations" / "instances_val2017.json").read_text()
    written(
        folder,
        {
            "annotations/instances_train2017.json": document,
            **{f"train2017/{name}.png": encode(photo(7)) for name in "abc"},
        },
    )
    found = taken(folder)
    assert "split train (beside it: validation)" in found.taken_for
    shown = np.asarray(Image.open(io.BytesIO(files_of(found)["a-11.png"])))
    assert np.array_equal(shown, np.asarray(photo(7))[:20, :20])
    written(folder, {"annotations/person_annotations_train2017.json": document})
    with pytest.raises(InvalidRequest, match="may be COCO annotations") as told:
        taken(folder)
    assert "Name one of them" in told.value.remedy


def test_boxes_follow_the_size_that_the_annotations_state(tmp_path: Path) -> None:
    """A photograph that its EXIF turns is annotated as stored by some, as shown by others."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    upright = photo(5, 60, 80)
    turned = encode(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    folder = coco(
        tmp_path,
        images=[
            {"id": 1, "file_name": "a.png", "width": 60, "height": 80},
            {"id": 2, "file_name": "b.png", "width": 80, "height": 60},
            {"id": 9, "file_name": "c.png", "width": 10, "height": 60},
        ],
    )
    written(folder, {"val2017/a.png": turned, "val2017/b.png": turned})
    found = taken(folder)
    files = files_of(found)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(files["a-11.png"]))), np.asarray(upright)[:20, :20]
    )
    stored = np.asarray(upright.transpose(Image.Transpose.ROTATE_90))
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(files["b-10.png"]))), stored[5:45, 10:41]
    )
    assert found.left_out["boxes of images whose size is not that of the annotations"] == 1


def test_annotations_of_another_program_do_not_disturb_label_folders(tmp_path: Path) -> None:
    folder = written(tmp_path, labelled_files(2, 2))
    written(folder, {"annotations.json": '{"cat/1.png": {"regions": [], "size": 7}}'})
    assert read_input([str(folder)]) == folder


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "is no JSON"),
        ('{"images": []}', "fails at 'categories'"),
        ("[]", "is no file of COCO annotations"),
        (
            json.dumps({"images": [], "annotations": [BOXES[0]], "categories": []}),
            r"is no file of COCO annotations \(it fails at 17\)",
        ),
    ],
)
def test_annotations_that_are_none_are_told(tmp_path: Path, document: str, said: str) -> None:
    path = written(tmp_path, {"instances.json": document, "a.png": png()}) / "instances.json"
    with pytest.raises(InvalidRequest, match=said):
        taken(path)
