"""Dataset objects of torchvision and timm, and whatever else is indexed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset
from torchvision import datasets, transforms

from app.errors import InvalidRequest
from app.inputs.objects import from_dataset
from tests.images import labelled_files
from tests.inputs.reading import archive_of, files_of, intake, labels_of, written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path, labelled_files(3, 2, size=24))


def test_a_torchvision_dataset_brings_its_classes(folder: Path) -> None:
    found = from_dataset(datasets.ImageFolder(folder), name="shapes")
    assert intake(found)[1] == {"circle": 2, "square": 2, "triangle": 2}
    assert found.name == "shapes.zip"
    assert found.taken_for == "a dataset object of 6 images and 3 classes"
    assert archive_of(found) == archive_of(from_dataset(datasets.ImageFolder(folder)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its own files
def test_a_timm_dataset_brings_its_classes(folder: Path) -> None:
    assert intake(from_dataset(timm.data.create_dataset("", folder)))[1] == {
        "circle": 2,
        "square": 2,
        "triangle": 2,
    }


def test_a_subset_has_the_classes_of_the_whole(folder: Path) -> None:
    found = from_dataset(Subset(datasets.ImageFolder(folder), [0, 5]))
    assert labels_of(found) == {"000000.png": "circle", "000001.png": "triangle"}


def test_tensors_give_the_pixels_they_were_made_of(folder: Path) -> None:
    whole = datasets.ImageFolder(folder)
    tensors = datasets.ImageFolder(folder, transform=transforms.ToTensor())
    assert archive_of(from_dataset(tensors)) == archive_of(from_dataset(whole))


def test_tensors_of_bytes_and_of_grey_are_taken(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 1, 20, 24), generator=generator, dtype=torch.uint8)
    found = from_dataset(TensorDataset(pixels, torch.tensor([0, 1, 1, 0])), ["no", "yes"])
    assert list(labels_of(found).values()) == ["no", "yes", "yes", "no"]
    shown = np.asarray(Image.open(io.BytesIO(files_of(found)["000002.png"])))
    assert np.array_equal(shown, pixels[2, 0].numpy())


def test_a_row_of_zeros_and_ones_marks_several_labels() -> None:
    pixels = torch.arange(3 * 3 * 64, dtype=torch.float32).reshape(3, 3, 8, 8) / 1000
    marks = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    found = from_dataset(TensorDataset(pixels, marks), ["a", "b", "c"])
    assert list(labels_of(found).values()) == ["a|c", "", "b"]


def test_texts_and_lists_are_labels_as_they_are() -> None:
    grey = [Image.new("L", (8, 8), 40 * i) for i in range(3)]
    pairs = list(zip(grey, ["owl", ["owl", "night"], None], strict=True))
    found = from_dataset(pairs)
    assert list(labels_of(found).values()) == ["owl", "owl|night"]
    assert found.left_out == {"without a label": 1}


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ((torch.full((3, 8, 8), 1.7), 0), "go from 1.7 to 1.7"),
        ((torch.zeros((3, 8, 8), dtype=torch.int64), 0), "Pixels of item 0 are int64"),
        ((torch.zeros(8), 0), r"has the shape \(8,\)"),
        ((torch.zeros((3, 8, 8)), torch.tensor([1, 0, 0])), "marks 3 labels; there are 2 classes"),
        ((torch.zeros((3, 8, 8)), torch.tensor([0.3, 0.7])), "no number, text or row of zeros"),
        ({"image": 1, "label": 0}, "Item 0 is dict"),
    ],
)
def test_an_item_that_does_not_fit_says_what_it_is(item: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as told:
        archive_of(from_dataset([item], ["a", "b"]))
    assert "without Normalize" in told.value.remedy


def test_a_number_that_is_no_class_is_left_out() -> None:
    image = Image.new("RGB", (8, 8))
    found = from_dataset([(image, 0), (image, 7)], ["a", "b"])
    assert labels_of(found) == {"000000.png": "a"}
    assert found.left_out == {"with a label that is none of the 2 classes": 1}
