"""Shards as the library `webdataset` itself wrote them (samples/write.py), and as others do."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from app.errors import InvalidRequest, Refused
from app.inputs.recognise import read_input
from tests.images import labelled_files, make_tar, png
from tests.inputs.reading import SAMPLES, archive_of, intake, labels_of, taken

SHARDS = SAMPLES / "webdataset"
FIRST = SHARDS / "shapes-train-000000.tar"


@pytest.mark.parametrize(
    "pattern", ["", "shapes-train-{000000..000001}.tar", "*.tar", "shapes-{train,x*}-00000?.tar"]
)
def test_a_folder_and_patterns_of_braces_and_wildcards_give_all_shards(pattern: str) -> None:
    found = taken(SHARDS / pattern)
    assert len(labels_of(found)) == 6
    assert "WebDataset shards" in found.taken_for


def test_a_shell_may_have_expanded_the_pattern() -> None:
    paths = sorted(SHARDS.glob("*.tar"))
    assert archive_of(taken(*paths)) == archive_of(taken(SHARDS / "*.tar"))


def test_cls_is_the_label_where_there_is_one() -> None:
    found = taken(FIRST)
    assert labels_of(found) == {"000000.png": "0", "000001.png": "1", "000002.png": "2"}
    assert found.taken_for == "a WebDataset shard, split train, image png, label cls"
    assert intake(found)[1] == {"0": 1, "1": 1, "2": 1}


def test_another_label_is_a_file_of_the_sample_or_a_key_of_its_json() -> None:
    assert list(labels_of(taken(FIRST, label_column="shape")).values()) == [
        "circle",
        "square",
        "cross",
    ]
    assert "a cross" in labels_of(taken(FIRST, label_column="txt")).values()
    with pytest.raises(InvalidRequest, match="no column 'kind'; it has cls, txt, shape, size"):
        taken(FIRST, label_column="kind")


def shard(tmp_path: Path, files: dict[str, bytes], compression: str = "") -> Path:
    path = tmp_path / f"shard.tar{'.' if compression else ''}{compression}"
    path.write_bytes(make_tar(files, compression))
    return path


def test_a_shard_may_be_compressed_and_mix_formats_of_images(tmp_path: Path) -> None:
    files = {"a/x.jpg": png("red"), "a/x.cls": b"3\n", "b/x.png": png("blue"), "b/x.cls": b"4\n"}
    assert labels_of(taken(shard(tmp_path, files, "gz"))) == {"a/x.jpg": "3", "b/x.png": "4"}


def test_a_json_with_a_list_gives_several_labels(tmp_path: Path) -> None:
    files = {
        "x.png": png("red"),
        "x.json": b'{"labels": ["owl", "night"], "id": 1}',
        "y.png": png("blue"),
        "y.json": b'{"labels": [], "id": 2}',
    }
    assert labels_of(taken(shard(tmp_path, files))) == {"x.png": "owl|night", "y.png": ""}


def test_samples_without_label_or_image_are_left_out_and_told(tmp_path: Path) -> None:
    files = {
        "a.png": png("red"),
        "a.json": b'{"label": "owl"}',
        "b.png": png("blue"),
        "c.json": b'{"label": "owl"}',
        "d.png": png("green"),
        "d.json": b"{",
    }
    found = taken(shard(tmp_path, files))
    assert labels_of(found) == {"a.png": "owl"}
    assert found.left_out == {
        "without a label": 1,
        "without an image": 1,
        "with a json that cannot be read": 1,
    }


def test_what_a_sample_holds_is_seen_by_the_first_with_an_image(tmp_path: Path) -> None:
    files = {"about.json": b"[]", "a.png": png(), "a.txt": b"owl", "a.json": b"{"}
    assert labels_of(taken(shard(tmp_path, files, "zst"))) == {"a.png": "owl"}
    (tmp_path / "empty.tar").write_bytes(make_tar({"about.json": b"[]"}))
    with pytest.raises(InvalidRequest, match="holds no image"):
        taken(tmp_path / "empty.tar", form="webdataset")


def test_text_and_json_could_both_be_labels(tmp_path: Path) -> None:
    files = {"a.png": png("red"), "a.txt": b"owl", "a.json": b'{"label": "owl"}'}
    with pytest.raises(InvalidRequest, match="txt, label could all hold labels") as told:
        taken(shard(tmp_path, files))
    assert "--label-column" in told.value.remedy


def test_a_tar_of_label_folders_goes_as_it_is(tmp_path: Path) -> None:
    path = shard(tmp_path, labelled_files(2, 2))
    assert read_input([str(path)]) == path


def test_the_same_key_in_two_shards_is_two_pictures(tmp_path: Path) -> None:
    for number, colour in enumerate(("red", "blue")):
        files = {"0.png": png(colour), "0.cls": str(number).encode()}
        (tmp_path / f"s-{number}.tar").write_bytes(make_tar(files))
    assert labels_of(taken(tmp_path)) == {"s-0/0.png": "0", "s-1/0.png": "1"}


def test_a_shard_that_is_cut_off_is_named(tmp_path: Path) -> None:
    for name in ("s-0.tar", "s-1.tar"):
        (tmp_path / name).write_bytes(FIRST.read_bytes())
    with (tmp_path / "s-1.tar").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(Refused, match=r"s-1\.tar: The tar archive is cut off"):
        io.BytesIO(archive_of(taken(tmp_path)))
