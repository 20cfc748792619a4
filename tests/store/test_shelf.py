from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from app.store.shelf import Column, Manifest, Shelf
from tests.store.killed import run_and_kill

COLUMNS = {"ids": Column("<i8", 1), "codes": Column("|i1", 300), "points": Column("<f4", 3, True)}


def rows(start: int, count: int) -> dict[str, np.ndarray]:
    """What stands in a row follows from its number."""
    ids = np.arange(start, start + count)
    return {
        "ids": ids,
        "codes": np.repeat((ids % 100).astype(np.int8)[:, None], 300, axis=1),
        "points": np.stack([ids, 2 * ids, 3 * ids], axis=1).astype(np.float32),
    }


def opened(directory: Path) -> Shelf:
    return Shelf(directory, COLUMNS)


def fill(shelf: Shelf, start: int, count: int, **counted: int) -> None:
    with shelf.writing():
        shelf.append(rows(start, count), **counted)


def assert_whole(shelf: Shelf, count: int) -> None:
    assert len(shelf) == count
    for name, expected in rows(0, count).items():
        np.testing.assert_array_equal(
            shelf.column(name).reshape(-1), expected.reshape(-1), err_msg=name
        )


def test_rows_stand_where_they_were_put_and_are_there_the_next_time(tmp_path: Path) -> None:
    shelf = opened(tmp_path / "shelf")
    assert_whole(shelf, 0)
    fill(shelf, 0, 5, seen=17)
    fill(shelf, 5, 3, buried=2)
    for each in (shelf, opened(tmp_path / "shelf")):
        assert_whole(each, 8)
        assert each.manifest == Manifest(rows=8, seen=17, buried=2)


def test_what_another_process_wrote_is_seen_once_looked_for(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "shelf"), opened(tmp_path / "shelf")
    fill(one, 0, 4)
    assert len(other) == 0
    assert other.refresh()
    assert_whole(other, 4)
    fill(other, 4, 4)
    fill(one, 8, 1)
    assert_whole(one, 9)
    assert other.refresh()
    assert not other.refresh()


def test_a_thread_that_reads_while_another_writes_finds_whole_rows(tmp_path: Path) -> None:
    shelf = opened(tmp_path / "shelf")
    done = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not done.is_set():
            ids = shelf.column("ids")[:, 0]
            codes, points = shelf.column("codes"), shelf.column("points")
            count = len(ids)
            if not (ids == np.arange(count)).all():
                wrong.append("ids")
            if count and (codes[count - 1] != (count - 1) % 100).any():
                wrong.append("codes")
            if count and points[count - 1, 2] != 3 * (count - 1):
                wrong.append("points")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, 300, 3):
        fill(shelf, start, 3)
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert_whole(shelf, 300)


def test_rows_that_no_manifest_counts_are_written_over(tmp_path: Path) -> None:
    """As a writer leaves them that was killed in between."""
    fill(opened(tmp_path / "shelf"), 0, 4)
    with (tmp_path / "shelf" / "codes.column").open("ab") as torn:
        torn.write(b"\7" * 450)
    shelf = opened(tmp_path / "shelf")
    assert_whole(shelf, 4)
    fill(shelf, 4, 4)
    assert_whole(opened(tmp_path / "shelf"), 8)


@pytest.mark.parametrize(
    "tear",
    [
        lambda d: os.truncate(d / "codes.column", 500),
        lambda d: (d / "ids.column").unlink(),
        lambda d: (d / "manifest.json").write_text('{"rows": 4'),
        lambda d: (d / "manifest.json").write_text("[]"),
        lambda d: (d / "manifest.json").unlink(),
        lambda d: (d / "manifest.json").write_text(
            json.dumps(json.loads((d / "manifest.json").read_text()) | {"columns": {}})
        ),
    ],
    ids=["short", "column gone", "half a manifest", "no object", "no manifest", "other columns"],
)
def test_a_shelf_that_does_not_fit_is_empty_and_can_be_filled_anew(
    tmp_path: Path,
    tear: object,
) -> None:
    fill(opened(tmp_path / "shelf"), 0, 4, seen=9)
    tear(tmp_path / "shelf")  # type: ignore[operator]
    shelf = opened(tmp_path / "shelf")
    assert (len(shelf), shelf.manifest.seen) == (0, 0)
    fill(shelf, 0, 6)
    assert_whole(opened(tmp_path / "shelf"), 6)


def test_a_replaced_column_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    shelf, reader = opened(tmp_path / "shelf"), None
    fill(shelf, 0, 6)
    reader = opened(tmp_path / "shelf")
    before = reader.column("points")
    with shelf.writing():
        shelf.replace("points", iter([np.full((4, 3), 7.0), np.full((2, 3), 8.0)]), 1, fitted=6)
    np.testing.assert_array_equal(before, rows(0, 6)["points"])
    assert reader.refresh()
    assert (reader.manifest.version, reader.manifest.fitted) == (1, 6)
    np.testing.assert_array_equal(reader.column("points")[:, 0], [7, 7, 7, 7, 8, 8])
    assert len(list((tmp_path / "shelf").glob("points*"))) == 1


def test_what_does_not_fit_into_memory_is_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(opened(tmp_path / "shelf"), 0, 40)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "app.store.shelf.os.posix_fadvise", lambda _, at, size, __: asked.append((at, size))
    )
    shelf = opened(tmp_path / "shelf")
    shelf.expect("codes", np.array([3, 4, 5, 9]))
    assert asked == []
    monkeypatch.setattr("app.store.shelf._MEMORY_BYTES", 1_000)
    shelf = opened(tmp_path / "shelf")
    assert_whole(shelf, 40)
    shelf.expect("codes", np.array([3, 4, 5, 9]))
    shelf.expect("codes", np.array([], np.int64))
    assert asked == [(900, 900), (2_700, 300)]


def test_a_row_is_overwritten_in_place(tmp_path: Path) -> None:
    shelf = opened(tmp_path / "shelf")
    fill(shelf, 0, 4)
    with shelf.writing():
        shelf.overwrite("ids", [2], -1)
        shelf.publish(buried=5)
    assert opened(tmp_path / "shelf").column("ids")[:, 0].tolist() == [0, 1, -1, 3]


FULL_DISK = """
import resource, sys
from pathlib import Path
from tests.store.test_shelf import fill, opened
shelf = opened(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
try:
    fill(shelf, 4, 50)
except OSError as error:
    print("refused", len(shelf))
"""


def test_where_the_disk_takes_no_more_the_rows_before_stay(tmp_path: Path) -> None:
    """The system refuses bytes beyond a limit, as it does on a full disk."""
    fill(opened(tmp_path / "shelf"), 0, 4)
    told = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "shelf")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["refused", "4"], told.stderr
    shelf = opened(tmp_path / "shelf")
    assert_whole(shelf, 4)
    fill(shelf, 4, 50)
    assert_whole(opened(tmp_path / "shelf"), 54)


WRITER = """
import sys
from pathlib import Path
from tests.store.test_shelf import opened, rows
shelf = opened(Path(sys.argv[1]))
print("up", flush=True)
while True:
    with shelf.writing():
        shelf.append(rows(len(shelf), 37))
"""


def test_killed_at_any_moment_it_holds_whole_rows(tmp_path: Path) -> None:
    generator = random.Random(0)
    for _ in range(4):
        run_and_kill(WRITER, str(tmp_path / "shelf"), seconds=generator.uniform(0, 0.15))
        shelf = opened(tmp_path / "shelf")
        assert len(shelf) % 37 == 0
        assert_whole(shelf, len(shelf))
    assert len(shelf) > 0
