"""Manifests, the metadata of image folders, and what competitions hand out."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import InvalidRequest
from app.inputs.pictures import Asked
from app.inputs.recognise import read_input
from tests.images import labelled_files, png
from tests.inputs.reading import archive_of, intake, labels_of, taken, written

COLOURS = ("red", "green", "blue", "white")


def pictures(folder: str, names: tuple[str, ...]) -> dict[str, bytes]:
    return {f"{folder}/{name}": png(COLOURS[i]) for i, name in enumerate(names)}


def competition(tmp_path: Path) -> Path:
    """train.csv with ids without extension; images of both splits in folders beside it."""
    return written(
        tmp_path,
        {
            "train.csv": "image_id,breed,age\n007,pug,3\n008,husky,4\n009,pug,3\n",
            "test.csv": "image_id\n010\n",
            "sample_submission.csv": "image_id,breed\n010,pug\n",
            **pictures("train_images", ("007.jpg", "008.jpg", "009.png")),
            **pictures("test_images", ("010.jpg",)),
        },
    )


def test_a_competitions_train_csv_finds_its_images_without_their_extension(tmp_path: Path) -> None:
    folder = competition(tmp_path)
    found = taken(folder, label_column="breed")
    assert labels_of(found) == {"007": "pug", "008": "husky", "009": "pug"}
    assert found.taken_for == (
        "a table of images (train.csv), split train (beside it: test), image column image_id, "
        "label column breed"
    )
    assert intake(found)[1] == {"husky": 1, "pug": 2}
    assert archive_of(found) == archive_of(taken(folder / "train.csv", label_column="breed"))


def test_columns_that_could_all_be_labels_are_listed(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="breed, age could all hold labels") as told:
        taken(competition(tmp_path))
    assert "--label-column" in told.value.remedy


def test_the_same_id_in_two_folders_means_the_one_of_the_tables_split(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        {
            "train.csv": "id,label\n1,a\n2,b\n",
            **pictures("train", ("1.jpg", "2.jpg")),
            "test/1.jpg": png("black"),
        },
    )
    assert intake(taken(folder))[0].digests == intake(taken(folder / "train.csv"))[0].digests
    written(folder, {"other.csv": "id,label\n1,a\n2,b\n"})
    with pytest.raises(InvalidRequest, match=r"'1' may be test/1\.jpg or train/1\.jpg"):
        archive_of(taken(folder / "other.csv"))


def test_an_image_folder_with_metadata_has_a_table_a_split(tmp_path: Path) -> None:
    """As the library `datasets` reads it: file_name is relative to the metadata's folder."""
    table = "file_name,label,photographer\n{}.png,owl,x\ndeep/{}.png,hen,y\n"
    folder = written(
        tmp_path,
        {
            "train/metadata.csv": table.format(0, 1),
            "test/metadata.csv": table.format(2, 3),
            "train/0.png": png("red"),
            "train/deep/1.png": png("green"),
            "test/2.png": png("blue"),
            "test/deep/3.png": png("white"),
        },
    )
    assert labels_of(taken(folder)) == {"0.png": "owl", "deep/1.png": "hen"}
    assert intake(taken(folder, split="all"))[1] == {"hen": 2, "owl": 2}


def test_metadata_in_json_lines_may_list_several_labels(tmp_path: Path) -> None:
    lines = '{"file_name": "0.png", "labels": ["a", "b"]}\n{"file_name": "1.png", "labels": []}\n'
    folder = written(tmp_path, {"metadata.jsonl": lines, "0.png": png("red"), "1.png": png("blue")})
    assert labels_of(taken(folder)) == {"0.png": "a|b", "1.png": ""}


def test_paths_of_a_manifest_may_lead_out_of_its_folder_or_be_absolute(tmp_path: Path) -> None:
    far = written(tmp_path / "far", pictures("x", ("1.png", "2.png")))
    rows = f"path;label\n../far/x/1.png;a\n{far}/x/2.png;b|c\n"
    folder = written(tmp_path / "near", {"set.csv": rows})
    found = taken(folder / "set.csv")
    assert list(labels_of(found).values()) == ["a", "b|c"]
    assert all(".." not in name and not name.startswith("/") for name in labels_of(found))


def test_values_stay_texts_and_the_byte_order_mark_is_none_of_them(tmp_path: Path) -> None:
    rows = "\ufefffile\tlabel\n1.png\t01\n2.png\t1e3\n"
    folder = written(tmp_path, {"set.tsv": rows, "1.png": png("red"), "2.png": png("blue")})
    assert labels_of(taken(folder / "set.tsv")) == {"1.png": "01", "2.png": "1e3"}


def test_labels_that_look_like_files_do_not_name_the_images(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(1, 5)]
    rows = "".join(f"{name.removesuffix('.png')},{1 + i % 2}\n" for i, name in enumerate(names))
    folder = written(tmp_path, {"set.csv": f"id,digit\n{rows}", **pictures("img", tuple(names))})
    assert labels_of(taken(folder)) == {"1": "1", "2": "2", "3": "1", "4": "2"}


def test_rows_without_image_or_label_are_left_out_and_told(tmp_path: Path) -> None:
    rows = "file,label\n1.png,a\n2.png,b\n3.png,\ngone.png,a\n,b\n"
    folder = written(tmp_path, {"set.csv": rows, **pictures("img", ("1.png", "2.png", "3.png"))})
    found = taken(folder)
    assert labels_of(found) == {"1.png": "a", "2.png": "b"}
    assert found.left_out == {
        "without a label": 1,
        "without an image": 1,
        "named in set.csv, but not there": 1,
    }
    none = taken(folder, label_kind="multi_label")
    assert labels_of(none)["3.png"] == ""


def test_rows_of_the_same_image_join_their_labels(tmp_path: Path) -> None:
    rows = "file,label\n1.png,a\n1.png,b\n2.png,b\n"
    folder = written(tmp_path, {"set.csv": rows, **pictures("img", ("1.png", "2.png"))})
    found = taken(folder)
    assert labels_of(found) == {"1.png": "a|b", "2.png": "b"}
    assert "1 rows name an image again" in found.taken_for


def test_a_column_a_label_is_read_where_the_columns_are_named(tmp_path: Path) -> None:
    rows = "id,rust,scab,healthy\n1,1,1,0\n2,0,0,1\n3,0,0,0\n"
    folder = written(tmp_path, {"train.csv": rows, **pictures("i", ("1.png", "2.png", "3.png"))})
    found = taken(folder, label_column="rust,scab,healthy")
    assert labels_of(found) == {"1": "rust|scab", "2": "healthy", "3": ""}


def test_other_columns_may_hold_long_texts_and_addresses(tmp_path: Path) -> None:
    rows = f'file_name,page,label,caption\n1.png,http://h/1,a,"{"long " * 100}"\n'
    folder = written(tmp_path, {"metadata.csv": rows, "1.png": png()})
    assert labels_of(taken(folder)) == {"1.png": "a"}


def test_a_table_of_names_that_every_label_folder_has_could_be_either(tmp_path: Path) -> None:
    files = {f"{label}/{i}.png": png((i, 0, 9)) for label in ("owl", "hen") for i in range(2)}
    folder = written(tmp_path, {"sharpness.csv": "file,sharp\n0.png,0.7\n1.png,0.2\n", **files})
    with pytest.raises(InvalidRequest, match="could be taken for"):
        taken(folder)
    with pytest.raises(InvalidRequest, match=r"'0\.png' may be hen/0\.png or owl/0\.png"):
        archive_of(taken(folder, form="table"))


def test_label_folders_with_a_table_of_their_images_could_be_either(tmp_path: Path) -> None:
    files = labelled_files(2, 2)
    rows = "".join(f"{name},site{i % 2}\n" for i, name in enumerate(files))
    folder = written(tmp_path, {"sites.csv": f"file,site\n{rows}", **files})
    with pytest.raises(
        InvalidRequest, match="could be taken for a folder of label folders"
    ) as told:
        taken(folder)
    assert "--form folder or --form table" in told.value.remedy
    assert read_input([str(folder)], Asked(form="folder")) == folder
    assert intake(taken(folder, form="table"))[1] == {"site0": 2, "site1": 2}


def test_a_table_of_something_else_does_not_disturb_label_folders(tmp_path: Path) -> None:
    folder = written(tmp_path, labelled_files(2, 2))
    written(folder, {"sizes.csv": "label,number\ncircle,2\n", "broken.csv": b"\xff\xfe\x00,"})
    assert read_input([str(folder)]) == folder


def test_labels_beside_their_images_go_as_they_are(tmp_path: Path) -> None:
    rows = "file,label\n1.png,a\n2.png,b\n"
    folder = written(tmp_path, {"labels.csv": rows, "1.png": png("red"), "2.png": png("blue")})
    assert read_input([str(folder)]) == folder
    written(folder, {"train/a/3.png": png(), "train/b/4.png": png()})
    assert read_input([str(folder)]) == folder


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe,", "cannot be read as a table"),
        (b"", "cannot be read as a table"),
        (b"file,label\nx.png,a\n", "none of file, label holds names of images that are there"),
        (b"file\n1.png\n", "none of no columns holds labels"),
    ],
)
def test_a_table_that_does_not_fit_says_what_it_is(
    tmp_path: Path, content: bytes, said: str
) -> None:
    folder = written(tmp_path, {"set.csv": content, "1.png": png("red")})
    with pytest.raises(InvalidRequest, match=said):
        taken(folder / "set.csv")


def test_a_label_that_the_service_would_split_is_refused(tmp_path: Path) -> None:
    lines = '{"file": "0.png", "label": ["a|b"]}\n'
    folder = written(tmp_path, {"set.jsonl": lines, "0.png": png("red")})
    with pytest.raises(InvalidRequest, match=r"'a\|b' cannot be a label"):
        archive_of(taken(folder / "set.jsonl"))
