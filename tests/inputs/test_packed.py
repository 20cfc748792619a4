from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import InvalidRequest
from app.inputs.packed import Input
from app.inputs.pictures import LeftOut, Picture, Pictures
from app.local import _seekable
from tests.images import png
from tests.inputs.reading import archive_of, files_of, labels_of


def packed(*names: str, fetched: bool = False) -> Input:
    def each(left_out: Counter[str]) -> Iterator[Picture]:
        left_out["of another kind"] += 1
        for i, name in enumerate(names):
            yield Picture(name, (f"label {i % 2}",), lambda i=i: png((i, 0, 0)))  # type: ignore[misc]

    return Input("set", Pictures("pictures of a test", each, fetched))


def test_names_are_safe_and_everyone_has_their_own() -> None:
    names = ["/a.png", "a.png", "../a.png", "C:\\b\\c.png", ".hidden/d.png", "", "é.png", "é.png"]
    assert list(labels_of(packed(*names))) == [
        "a.png",
        "a-2.png",
        "a-3.png",
        "C_/b/c.png",
        "hidden/d.png",
        "image",
        "é.png",
        "é-2.png",
    ]


def test_no_picture_takes_the_place_of_the_labels() -> None:
    assert list(labels_of(packed("labels.csv", "x/labels.csv"))) == [
        "labels-2.csv",
        "x/labels.csv",
    ]


def test_read_again_from_its_beginning_it_gives_the_same_and_counts_anew() -> None:
    found = packed("a.png", "b.png")
    with found.open() as stream:
        first = stream.read()
        stream.seek(0)
        assert stream.read() == first
    assert found.left_out == {"of another kind": 1}


@pytest.mark.parametrize("fetched", [False, True])
def test_order_is_that_of_the_pictures_however_they_come(fetched: bool) -> None:
    names = [f"{i:02d}.png" for i in range(50)]
    assert archive_of(packed(*names, fetched=fetched)) == archive_of(packed(*names))


def test_no_more_is_fetched_ahead_than_readers_need() -> None:
    begun = 0
    lock = threading.Lock()

    def read() -> bytes:
        nonlocal begun
        with lock:
            begun += 1
        return png()

    def each(_: Counter[str]) -> Iterator[Picture]:
        return (Picture(f"{i}.png", ("a",), read) for i in range(1000))

    with Input("set", Pictures("pictures", each, fetched=True)).open() as stream:
        stream.read(10)
        assert begun <= 16


def test_what_is_no_image_is_left_out_and_told() -> None:
    def each(_: Counter[str]) -> Iterator[Picture]:
        yield Picture("a.png", ("a",), png)
        yield Picture("b.png", ("a",), lambda: b"<html>not found</html>")

    found = Input("set", Pictures("pictures", each))
    assert list(files_of(found)) == ["a.png", "labels.csv"]
    assert found.left_out == {"files of no image format that is read here": 1}


def test_nothing_left_is_refused_with_the_reasons() -> None:
    def gone() -> bytes:
        raise LeftOut("gone")

    def each(_: Counter[str]) -> Iterator[Picture]:
        return iter([Picture("a.png", ("a",), gone), Picture("b.png", ("b",), gone)])

    found = Input("set", Pictures("a table", each))
    with pytest.raises(InvalidRequest, match=r"Of a table no picture is left \(2 gone\)"):
        archive_of(found)


@pytest.mark.parametrize("label", ["a|b", "line\nbreak", "x" * 201])
def test_a_label_that_the_service_cannot_take_is_told_before_it_is_sent(label: str) -> None:
    def each(_: Counter[str]) -> Iterator[Picture]:
        yield Picture("a.png", (label,), png)

    with pytest.raises(InvalidRequest, match="cannot be a label"):
        archive_of(Input("set", Pictures("pictures", each)))


def test_embedding_here_reads_the_same_archive_as_the_service() -> None:
    found = packed("a.png", "b.png")
    with _seekable(found) as file:
        assert file.read() == archive_of(found)
        assert file.seek(5) == 5
    assert not isinstance(found, Path)
