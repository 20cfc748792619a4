"""Archives become one labelled image set, and every file is accounted for."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.embedding import dataset, decoding
from app.embedding.archive import ArchiveLimits
from app.embedding.dataset import LabelledImages, read_labelled_images
from app.embedding.image import decode_image
from app.embedding.layout import named_members
from app.embedding.report import IntakeReport
from app.errors import Cancelled, Refused, Task2VecError, TooLarge
from tests.images import drawing, encode, labelled_files, make_tar, make_zip, png

SIZE = 16
LIMITS = ArchiveLimits()
RED, BLUE, LIME, PINK = (png(colour) for colour in ("red", "blue", "lime", "pink"))


def read(*archives: bytes, **options: Any) -> tuple[LabelledImages, IntakeReport]:
    asked: dict[str, Any] = {
        "size": SIZE,
        "label_kind": "auto",
        "limits": LIMITS,
        "max_image_pixels": 10**7,
        **options,
    }
    return read_labelled_images([io.BytesIO(archive) for archive in archives], **asked)


def refusal(*archives: bytes, **options: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        read(*archives, **options)
    assert refused.value.remedy
    return refused.value


def reasons(report: IntakeReport) -> dict[str, str | None]:
    return {file["path"]: file["reason"] for file in report.files if file["status"] == "skipped"}


def warning(report: IntakeReport, code: str) -> dict[str, Any]:
    (found,) = [dict(item) for item in report.warnings if item["code"] == code]
    return found


def codes(report: IntakeReport) -> set[str]:
    return {item["code"] for item in report.warnings}


def same(a: LabelledImages, b: LabelledImages) -> bool:
    return (
        np.array_equal(a.pixels, b.pixels)
        and np.array_equal(a.labels, b.labels)
        and (a.classes, a.digests, a.label_kind) == (b.classes, b.digests, b.label_kind)
    )


def test_pixels_are_those_of_the_files_that_are_used() -> None:
    small, large = (png_of_size(width, 30) for width in (40, 100))
    files = {"a/1.png": small, "a/2.png": small, "b/1.png": large, "b/2.png": b"no image"}
    _, report = read(make_zip(files))
    assert report.mean_pixels == (40 * 30 + 100 * 30) / 2


def png_of_size(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def test_folders_are_labels() -> None:
    files = labelled_files(3, 5)
    images, report = read(make_zip(files))
    assert images.classes == ("circle", "square", "triangle")
    assert images.label_kind == "single_label"
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    bytes_of = {hashlib.sha256(data).hexdigest(): data for data in files.values()}
    for row, digest in enumerate(images.digests):
        assert (images.pixels[row] == decode_image(bytes_of[digest], SIZE, 10**7)).all()
    assert report.summary() == {
        "used": 15,
        "skipped": 0,
        "classes": {"circle": 5, "square": 5, "triangle": 5},
        "mean_pixels": 64.0 * 64.0,
        "warnings": [],
        "skipped_reasons": {},
    }
    assert report.files[0] == {
        "path": "circle/000.png",
        "status": "used",
        "label": "circle",
        "reason": None,
    }


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(8)), st.sampled_from(["zip", "", "gz", "zst"]))
def test_order_and_names_of_files_do_not_matter(order: list[int], packing: str) -> None:
    files = labelled_files(2, 4, size=16)
    paths = list(files)
    renamed = {f"{paths[i].split('/')[0]}/{n}": files[paths[i]] for n, i in enumerate(order)}
    data = make_zip(renamed) if packing == "zip" else make_tar(renamed, packing)
    assert same(read(data)[0], read(make_zip(files))[0])


def test_one_enclosing_folder_is_tolerated() -> None:
    files = labelled_files(2, 5)
    plain, _ = read(make_zip(files))
    enclosed = {f"mydata/{path}": data for path, data in files.items()}
    images, report = read(make_zip({**enclosed, "README.md": b"# mine", "mydata/stray.png": RED}))
    assert same(images, plain)
    assert reasons(report).keys() == {"README.md", "mydata/stray.png"}


def test_system_files_and_other_files_are_skipped_with_a_reason() -> None:
    extra = {
        "__MACOSX/circle/._000.png": b"\0",
        "circle/.DS_Store": b"\0",
        "circle/Thumbs.db": b"\0",
        ".git/config": b"x",
        "circle/notes.txt": b"hello",
        "circle/empty.png": b"",
        "circle/more.zip": make_zip({"a": b"b"}),
        "circle/deeper/a.png": RED,
        "a.png": BLUE,
        "circle/cut.png": labelled_files(1, 1)["circle/000.png"][:200],
    }
    images, report = read(make_zip({**labelled_files(2, 5), **extra}))
    assert len(images.digests) == 10
    why = reasons(report)
    assert why.keys() == extra.keys()
    for path in (
        "__MACOSX/circle/._000.png",
        "circle/.DS_Store",
        "circle/Thumbs.db",
        ".git/config",
    ):
        assert why[path] == "hidden or system file"
    assert "not an image" in str(why["circle/notes.txt"])
    assert why["circle/empty.png"] == "empty file"
    assert "archive inside" in str(why["circle/more.zip"])
    assert "deeper" in str(why["circle/deeper/a.png"])
    assert "no label's folder" in str(why["a.png"])
    assert "cannot be decoded" in str(why["circle/cut.png"])
    assert warning(report, "unreadable-images")["files"] == ["circle/cut.png"]
    assert report.summary()["skipped"] == len(extra)
    json.dumps(report.summary())


def test_images_after_an_unreadable_one_keep_their_labels() -> None:
    files = labelled_files(3, 5)
    whole, _ = read(make_zip(files))
    cut = files["circle/002.png"]
    images, _ = read(make_zip({**files, "circle/002.png": cut[:-40]}))
    at = whole.digests.index(hashlib.sha256(cut).hexdigest())
    assert images.digests == whole.digests[:at] + whole.digests[at + 1 :]
    assert np.array_equal(images.pixels, np.delete(whole.pixels, at, axis=0))
    assert np.array_equal(images.labels, np.delete(whole.labels, at))


@pytest.mark.parametrize("top", ["", "mydata/"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "labels.csv",
            '\ufefffile,label,note\r\na.png,"x, y",\r\n./b.png,z,!\r\n\r\nimg/c.png,z,\r\n',
        ),
        (
            "labels.jsonl",
            '{"file": "a.png", "label": "x, y"}\n\n{"file": "b.png", "label": "z"}\n'
            '{"file": "img\\\\c.png", "label": "z", "note": 1}',
        ),
    ],
)
def test_labels_file_names_the_labels(top: str, name: str, text: str) -> None:
    files = {"a.png": RED, "b.png": BLUE, "img/c.png": LIME, name: text.encode()}
    images, report = read(make_tar({top + path: data for path, data in files.items()}))
    assert images.classes == ("x, y", "z")
    assert images.label_kind == "single_label"
    assert images.labels.tolist() == [0, 1, 1]
    assert report.summary()["used"] == 3
    assert report.summary()["skipped"] == 0
    assert {"path": top + name, "status": "used", "label": None, "reason": None} in report.files


def test_several_labels_make_a_multi_label_set() -> None:
    rows = "file,label\na.png,cat|dog\nb.png,dog\nc.png,\nd.png,|cat|cat\n"
    files = {"a.png": RED, "b.png": BLUE, "c.png": LIME, "d.png": PINK, "labels.csv": rows.encode()}
    images, report = read(make_zip(files))
    assert images.label_kind == "multi_label"
    assert images.classes == ("cat", "dog")
    assert images.labels.dtype == np.bool_
    by_digest = dict(zip(images.digests, images.labels.tolist(), strict=True))
    assert [by_digest[hashlib.sha256(data).hexdigest()] for data in (RED, BLUE, LIME, PINK)] == [
        [True, True],
        [False, True],
        [False, False],
        [True, False],
    ]
    assert report.classes == {"cat": 2, "dog": 2}
    assert {file["path"]: file["label"] for file in report.files}["a.png"] == "cat|dog"


def test_several_labels_are_refused_where_one_was_asked_for() -> None:
    files = {"a.png": RED, "b.png": BLUE, "labels.csv": b"file,label\na.png,x\nb.png,x|y\n"}
    error = refusal(make_zip(files), label_kind="single_label")
    assert error.code == "several-labels"
    assert "line 3" in error.detail


def test_folders_can_be_read_as_multi_label_and_join_the_labels_of_one_image() -> None:
    files = {"cat/a.png": RED, "dog/b.png": BLUE, "cat/c.png": LIME, "dog/also.png": LIME}
    images, report = read(make_zip(files), label_kind="multi_label")
    assert sorted(images.labels.tolist()) == [[False, True], [True, False], [True, True]]
    assert reasons(report) == {"dog/also.png": "same bytes as cat/c.png"}
    assert warning(report, "same-image-two-labels")["files"] == ["cat/c.png", "dog/also.png"]


def test_rows_without_files_and_files_without_rows_are_told() -> None:
    rows = b"file,label\na.png,x\nb.png,y\nc.png,\ngone.png,y\n"
    files = {"a.png": RED, "b.png": BLUE, "c.png": LIME, "more.png": PINK, "labels.csv": rows}
    images, report = read(make_zip(files))
    assert len(images.digests) == 2
    assert reasons(report) == {
        "c.png": "its row has no label",
        "gone.png": "named in labels.csv, but not in the archive",
        "more.png": "no row in labels.csv",
    }
    assert warning(report, "rows-without-file")["files"] == ["gone.png"]
    assert warning(report, "images-without-row")["files"] == ["more.png"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("labels.csv", b"", "line 1"),
        ("labels.csv", b"name,label\na.png,x\n", "line 1: the columns"),
        ("labels.csv", b"file,label\na.png,x\nb.png\n", "line 3: 1 fields"),
        ("labels.csv", b'file,label\na.png,x\nb.png,"y\n', "line 3"),
        ("labels.csv", b"file,label\na.png,x\na.png,y\n", "line 3: 'a.png' already has a row"),
        ("labels.csv", b"file,label\na.png,x\n,y\n", "line 3: it names no file"),
        ("labels.csv", b"file,label\na.png,x\nb.png,\xff\n", "line 3: it is not UTF-8"),
        ("labels.csv", b"file,label\na.png," + b"x" * 201, "line 2: a label"),
        ("labels.csv", b"file,label\na.png,x\0y", "line 2: a label"),
        ("labels.jsonl", b'{"file": "a.png", "label": "x"}\n{"file"', "line 2: it is not JSON"),
        ("labels.jsonl", b'{"file": "a.png", "label": 3}', "line 1: it is no object"),
        ("labels.jsonl", b'["a.png", "x"]', "line 1: it is no object"),
        ("labels.jsonl", b"[" * 100_000, "line 1: it is not JSON"),
        ("labels.jsonl", b'{"file": "a.png", "label": "\\ud800"}', "line 1: a label"),
    ],
)
def test_malformed_labels_file_is_refused_naming_the_line(
    name: str, text: bytes, says: str
) -> None:
    error = refusal(make_zip({"a.png": RED, "b.png": BLUE, name: text}))
    assert error.code == "labels-file-malformed"
    assert f"{name}, {says}" in error.detail


def test_two_labels_files_are_refused() -> None:
    files = {"a.png": RED, "labels.csv": b"file,label\n", "labels.jsonl": b""}
    assert refusal(make_zip(files)).code == "two-labels-files"


def test_labels_file_with_too_many_rows_is_too_large() -> None:
    rows = b"file,label\n" + b"".join(b"%d.png,x\n" % i for i in range(10))
    with pytest.raises(TooLarge):
        read(make_zip({"a.png": RED, "labels.csv": rows}), limits=ArchiveLimits(max_entries=9))


def test_copies_count_once() -> None:
    files = {"x/b.png": RED, "x/a.png": RED, "y/c.png": BLUE}
    images, report = read(make_zip(files))
    assert len(images.digests) == 2
    assert reasons(report) == {"x/b.png": "same bytes as x/a.png"}
    assert warning(report, "duplicate-images")["files"] == ["x/b.png"]
    assert report.classes == {"x": 1, "y": 1}


def test_one_image_under_two_labels_is_kept_under_both_and_told() -> None:
    files = {"x/a.png": RED, "x/b.png": LIME, "y/a.png": RED}
    images, report = read(make_zip(files))
    assert images.labels.tolist().count(0) == 2
    assert len(images.digests) == 3
    assert warning(report, "same-image-two-labels")["files"] == ["x/a.png", "y/a.png"]
    assert "duplicate-images" not in codes(report)


def test_small_and_dominant_classes_are_told() -> None:
    few = {f"few/{i}.png": png((0, i, 0)) for i in range(4)}
    many = {f"many/{i}.png": png((i, 0, 9)) for i in range(17)}
    _, report = read(make_zip({**few, **many}))
    assert "'few'" in warning(report, "class-small")["message"]
    assert "'many'" in warning(report, "class-dominant")["message"]
    del many["many/0.png"]
    _, report = read(make_zip({**few, **many, "few/x.png": png("red")}))
    assert codes(report) == set()


def test_labels_that_differ_by_case_or_spaces_are_told_not_merged() -> None:
    files = {"Ice cream/a.png": RED, "icecream/b.png": BLUE, "ICE  CREAM/c.png": LIME}
    images, report = read(make_zip({**files, "cake/d.png": PINK}))
    assert len(images.classes) == 4
    message = warning(report, "labels-alike")["message"]
    assert all(repr(path.split("/")[0]) in message for path in files)
    assert "cake" not in message


def test_class_that_lost_all_its_images_is_counted_zero() -> None:
    files = {**labelled_files(2, 5), "broken/a.png": RED[:30]}
    images, report = read(make_zip(files))
    assert images.classes == ("circle", "square")
    assert report.classes["broken"] == 0
    assert "'broken'" in warning(report, "class-small")["message"]


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"x/a.png": RED, "x/b.png": BLUE}, "too-few-classes"),
        ({"a.png": RED, "b.png": BLUE}, "no-readable-image"),
        ({"train/x/a.png": RED, "test/y/b.png": BLUE}, "no-readable-image"),
        ({"x/a.png": RED[:30], "y/b.png": b"text"}, "no-readable-image"),
        ({"readme.txt": b"hello"}, "no-readable-image"),
        ({"a.png": RED, "labels.csv": b"file,label\na.png,x\n"}, "too-few-classes"),
    ],
)
def test_set_without_two_classes_is_refused_with_its_report(
    files: dict[str, bytes], code: str
) -> None:
    error = refusal(make_zip(files))
    assert error.code == code
    report = error.problem()["report"]
    assert report["used"] + report["skipped"] == len(files) - (1 if "labels.csv" in files else 0)
    assert all(file["reason"] for file in report["files"])
    json.dumps(error.problem())


def test_set_with_no_labels_at_all_is_refused() -> None:
    files = {"a.png": RED, "labels.csv": b"file,label\na.png,\n"}
    assert refusal(make_zip(files), label_kind="multi_label").code == "too-few-classes"


def test_a_class_for_every_image_is_refused_beyond_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dataset, "MAX_CLASSES", 2)
    assert refusal(make_zip({"x/a": RED, "y/b": BLUE, "z/c": LIME})).code == "too-many-classes"


def test_versions_are_read_as_one_set() -> None:
    files = labelled_files(2, 6)
    paths = sorted(files)
    first = {path: files[path] for path in paths[:8]}
    second = {path: files[path] for path in paths[7:]}
    images, report = read(make_zip(first), make_tar(second, "gz"))
    assert same(images, read(make_zip(files))[0])
    assert same(images, read(make_tar(second), make_zip(first))[0])
    assert reasons(report) == {f"2:{paths[7]}": f"same bytes as 1:{paths[7]}"}
    assert {file["path"][:2] for file in report.files} == {"1:", "2:"}


def test_unreadable_second_archive_is_refused() -> None:
    assert refusal(make_zip(labelled_files(2, 2)), make_zip({})).code == "archive-empty"


def test_progress_reaches_the_number_of_images() -> None:
    seen: list[tuple[int, int]] = []
    files = labelled_files(2, 5)
    read(make_zip({**files, "x.txt": b"x"}), on_progress=lambda *at: seen.append(at))
    assert seen == [(0, n) for n in range(1, 12)] + [(n, 10) for n in range(1, 11)]


def test_cancel_ends_the_reading() -> None:
    def cancel(done: int, total: int) -> None:
        if done == 2:
            raise Cancelled("cancelled", "The job was cancelled.", "")

    with pytest.raises(Cancelled):
        read(make_zip(labelled_files(2, 20)), on_progress=cancel)


@pytest.mark.parametrize("decoders", [2, 7])
def test_number_of_decoders_changes_nothing(decoders: int) -> None:
    files = labelled_files(3, 8, size=90)
    files |= {
        f"jpeg/{i}.jpg": encode(drawing("ring", i, 150 + 40 * (i % 3)), "JPEG") for i in range(9)
    }
    files |= {"circle/cut.png": files["circle/001.png"][:-40], "ring/no.png": RED[:30]}
    files |= {"square/copy.png": files["circle/002.png"], "a.txt": b"text"}
    seen: dict[int, list[tuple[int, int]]] = {1: [], decoders: []}

    def read_by(decoders: int) -> tuple[LabelledImages, IntakeReport]:
        heard = seen[decoders]
        return read(make_zip(files), decoders=decoders, on_progress=lambda *at: heard.append(at))

    alone, report = read_by(1)
    together, other_report = read_by(decoders)
    assert same(together, alone)
    assert other_report == report
    assert seen[decoders] == seen[1]
    at = alone.digests.index(hashlib.sha256(files["jpeg/4.jpg"]).hexdigest())
    assert np.array_equal(alone.pixels[at], decode_image(files["jpeg/4.jpg"], SIZE, 10**7))


def test_files_read_ahead_of_the_decoders_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead: list[bytes] = []  # read and not decoded
    most = {"files": 0, "bytes": 0}

    def members(*arguments: Any) -> Iterator[tuple[str, bytes]]:
        for name, data in named_members(*arguments):
            ahead.append(data)
            most["files"] = max(most["files"], len(ahead))
            most["bytes"] = max(most["bytes"], sum(map(len, ahead)))
            yield name, data

    def decode(data: bytes, *arguments: Any) -> Any:
        time.sleep(0.002)  # slower than reading
        pixels = decode_image(data, *arguments)
        ahead.remove(data)
        return pixels

    monkeypatch.setattr(dataset, "named_members", members)
    monkeypatch.setattr(decoding, "decode_image", decode)
    files = labelled_files(3, 20, size=16)
    read(make_zip(files), decoders=3)
    assert 3 < most["files"] <= 2 * 3 + 1  # one is in hand, waiting for its turn
    largest = max(map(len, files.values()))
    assert most["bytes"] > 2 * largest
    most |= {"files": 0, "bytes": 0}
    read(make_zip(files), decoders=3, limits=ArchiveLimits(max_entry_bytes=largest))
    assert most["bytes"] <= 2 * largest


def test_cancel_drops_what_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[float] = []

    def decode(*arguments: Any) -> Any:
        pixels = decode_image(*arguments)
        time.sleep(0.02)
        decoded.append(time.monotonic())
        return pixels

    def cancel(done: int, total: int) -> None:
        if done == 1:
            raise Cancelled("cancelled", "The job was cancelled.", "")

    monkeypatch.setattr(decoding, "decode_image", decode)
    threads = threading.active_count()
    with pytest.raises(Cancelled):
        read(make_zip(labelled_files(2, 20)), decoders=2, on_progress=cancel)
    assert len(decoded) <= 4  # the first, and those that were under way
    assert threading.active_count() == threads


def test_what_goes_wrong_in_a_decoder_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(decoding, "decode_image", decode)
    with pytest.raises(MemoryError):
        read(make_zip(labelled_files(2, 20)), decoders=2)


def test_large_sets_live_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_zip({**labelled_files(2, 5), "circle/cut.png": RED[:30]})
    in_memory, _ = read(data)
    monkeypatch.setattr("app.embedding.spool.IN_MEMORY_BYTES", 1000)
    in_file, _ = read(data)
    assert isinstance(in_file.pixels, np.memmap)
    assert same(in_file, in_memory)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_any_labels_file_is_read_or_refused(text: bytes) -> None:
    for name in ("labels.csv", "labels.jsonl"):
        try:
            read(make_zip({"a.png": RED, "b.png": BLUE, name: b"file,label\n" + text}))
        except Task2VecError as error:
            assert error.status < 500


def test_names_that_macos_packs_decomposed_meet_their_rows_and_their_class() -> None:
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    rows = f"file,label\n{composed}.png,{decomposed}\nb.png,tea\n".encode()
    by_rows = make_zip({f"{decomposed}.png": RED, "b.png": BLUE, "labels.csv": rows})
    images, report = read(by_rows)
    assert images.classes == (composed, "tea")
    assert "rows-without-file" not in codes(report)

    by_folders = make_zip(
        {f"{decomposed}/1.png": RED, f"{composed}/2.png": LIME, "tea/3.png": BLUE}
    )
    images, report = read(by_folders)
    assert images.classes == (composed, "tea")
    assert report.classes[composed] == 2


@pytest.mark.parametrize("folder", ["x\x1b[31m", "x\n", "y" * 201])
def test_a_folder_is_held_to_the_rule_of_labels_files(folder: str) -> None:
    archive = make_zip({"a/1.png": RED, "b/2.png": BLUE, f"{folder}/3.png": LIME})
    images, report = read(archive)
    assert images.classes == ("a", "b")
    assert "no label" in str(reasons(report)[f"{folder}/3.png"])


def test_of_a_large_set_a_part_is_read_the_same_share_of_every_class() -> None:
    files = labelled_files(3, 20)
    whole, _ = read(make_zip(files))
    part, report = read(make_zip(files), most=12)
    again, _ = read(make_tar(dict(reversed(files.items()))), most=12)
    assert part.digests == again.digests
    assert np.bincount(part.labels).tolist() == [4, 4, 4]
    assert set(part.digests) < set(whole.digests)
    place = whole.digests.index(part.digests[0])
    np.testing.assert_array_equal(part.pixels[0], whole.pixels[place])
    assert len([file for file in report.files if file["status"] == "used"]) == 12
    more, _ = read(make_zip(files), most=12, least_of_a_class=7)
    assert np.bincount(more.labels).tolist() == [7, 7, 7]


def test_a_part_of_a_set_with_several_labels_is_of_the_whole() -> None:
    files = {f"{n}.png": png((n, 0, 0)) for n in range(10)}
    rows = [{"file": f"{n}.png", "label": "red|dark" if n % 2 else "red"} for n in range(10)]
    files["labels.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
    part, _ = read(make_zip(files), most=6)
    assert (part.label_kind, len(part.digests)) == ("multi_label", 6)
