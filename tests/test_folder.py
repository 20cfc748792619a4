from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from app.errors import InvalidRequest
from app.folder import ZippedFolder, archive_name, open_archive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "birds"
    for path, content in (
        ("owl/b.png", b"b" * 3_000_000),  # more than one piece
        ("owl/a.png", b"a"),
        ("hen/a.png", b"c"),
        ("hen/.DS_Store", b"x"),
        (".cache/d.png", b"x"),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def test_a_folder_reads_as_a_zip_of_its_visible_files_in_order(folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(ZippedFolder(folder).read())) as archive:
        assert archive.namelist() == ["hen/a.png", "owl/a.png", "owl/b.png"]
        assert archive.read("owl/b.png") == b"b" * 3_000_000
        assert archive.testzip() is None


def test_the_same_files_give_the_same_bytes_whenever_they_were_written(
    folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    for path in sorted(folder.rglob("*.png"), reverse=True):
        target = copy / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (copy / ".cache").rename(tmp_path / "unused")

    assert ZippedFolder(copy).read() == ZippedFolder(folder).read()


def test_reading_again_from_the_beginning_gives_the_same_bytes(folder: Path) -> None:
    stream = ZippedFolder(folder)
    first = stream.read(10)
    stream.seek(0)
    assert stream.read(10) == first
    with pytest.raises(io.UnsupportedOperation):
        stream.seek(5)


def test_a_large_folder_is_never_held_as_a_whole(folder: Path) -> None:
    stream = ZippedFolder(folder)
    longest = 0
    while piece := stream.read(1 << 30):
        longest = max(longest, len(piece))
    assert longest < 1.1 * (1 << 20)


def test_links_to_files_are_followed_and_links_to_folders_are_not(
    folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "z.png").write_bytes(b"z")
    (folder / "hen" / "z.png").symlink_to(outside / "z.png")
    (folder / "more").symlink_to(outside)
    with zipfile.ZipFile(io.BytesIO(ZippedFolder(folder).read())) as archive:
        assert "hen/z.png" in archive.namelist()
        assert "more/z.png" not in archive.namelist()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no files"):
        ZippedFolder(tmp_path)


def test_an_archive_is_opened_as_it_is_and_each_is_sent_under_a_name(
    folder: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "birds.tar.gz"
    archive.write_bytes(b"bytes")
    with open_archive(archive) as stream:
        assert stream.read() == b"bytes"
    assert archive_name(archive) == "birds.tar.gz"
    assert archive_name(folder) == "birds.zip"
