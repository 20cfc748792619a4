"""Images without labels are read as those of a set are, wherever they lie."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from app.embedding.archive import ArchiveLimits
from app.embedding.image import decode_image
from app.embedding.unlabelled import UnlabelledImages, inspect_images, read_images
from app.errors import Refused, TooLarge, UnsupportedMedia
from tests.images import labelled_files, make_tar, make_zip, png

SIZE = 16
RED, BLUE = png("red"), png("blue")


def read(data: bytes, name: str = "upload", **asked: Any) -> UnlabelledImages:
    limits = asked.pop("limits", ArchiveLimits())
    return read_images(
        io.BytesIO(data), name, size=SIZE, limits=limits, max_image_pixels=10_000, **asked
    )


def test_images_lie_anywhere_and_are_decoded_as_a_sets() -> None:
    files = labelled_files(2, 3) | {"top.png": RED, "deep/down/below.png": BLUE}
    for pack in (make_zip, make_tar):
        found = read(pack(files))
        assert list(found.rows) == sorted(files)
        assert found.refused == {}
        for name, row in found.rows.items():
            assert np.array_equal(found.pixels[row], decode_image(files[name], SIZE, 10_000))


def test_files_with_the_same_bytes_are_decoded_once_and_each_answered() -> None:
    heard: list[tuple[int, int]] = []
    found = read(
        make_zip({"b.png": RED, "a.png": RED, "c.png": BLUE}),
        on_progress=lambda done, total: heard.append((done, total)),
    )
    assert list(found.rows) == ["a.png", "b.png", "c.png"]
    assert found.rows["a.png"] == found.rows["b.png"] != found.rows["c.png"]
    assert len(found.pixels) == 2
    assert heard[-1] == (2, 2)


def test_what_is_no_image_is_listed_with_its_reason_and_the_rest_is_read() -> None:
    found = read(
        make_zip(
            {
                "good.png": RED,
                "cut.png": BLUE[:40],
                "huge.png": png("red", 200),
                "notes.txt": b"nothing to see",
                ".hidden.png": BLUE,
                "labels.csv": b"file,label\n",
            }
        )
    )
    assert list(found.rows) == ["good.png"]
    assert list(found.refused) == [".hidden.png", "cut.png", "huge.png", "labels.csv", "notes.txt"]
    assert "more than 10,000" in found.refused["huge.png"]
    assert "labels file" in found.refused["labels.csv"]


@pytest.mark.parametrize("name", ["red.png", ".cover.jpg", "labels.csv", "Thumbs.db"])
def test_a_plain_image_is_a_set_of_one_whatever_its_name(name: str) -> None:
    inspect_images(io.BytesIO(RED), ArchiveLimits())
    found = read(RED, name)
    assert (found.rows, found.refused) == ({name: 0}, {})
    assert np.array_equal(found.pixels[0], decode_image(RED, SIZE, 10_000))


@pytest.mark.parametrize(
    ("data", "why"),
    [(RED[:40], "header"), (png("red", 200), "more than 10,000")],
    ids=["cut", "huge"],
)
def test_a_plain_image_that_cannot_be_read_is_refused_as_one(data: bytes, why: str) -> None:
    with pytest.raises(Refused, match=f"The image 'red.png' cannot be read: .*{why}") as refused:
        read(data, "red.png")
    assert refused.value.code == "no-readable-image"


@pytest.mark.parametrize(
    ("data", "limits", "error", "code"),
    [
        (RED, ArchiveLimits(max_entry_bytes=20), TooLarge, "image-too-large"),
        (b"%PDF-1.7", ArchiveLimits(), UnsupportedMedia, "archive-unsupported"),
        (make_zip({"../a.png": RED}), ArchiveLimits(), Refused, "archive-path-unsafe"),
        (make_zip({}), ArchiveLimits(), Refused, "archive-empty"),
    ],
    ids=["image", "document", "path", "empty"],
)
def test_what_the_structure_shows_is_refused_before_anything_is_read(
    data: bytes, limits: ArchiveLimits, error: type[Exception], code: str
) -> None:
    with pytest.raises(error) as refused:
        inspect_images(io.BytesIO(data), limits)
    assert refused.value.code == code


def test_an_archive_without_images_is_refused_with_the_reason_of_each_file() -> None:
    with pytest.raises(Refused) as refused:
        read(make_zip({"a.txt": b"text", "b.png": RED[:30]}))
    assert refused.value.code == "no-readable-image"
    assert [file["path"] for file in refused.value.extra["report"]["files"]] == ["a.txt", "b.png"]
