"""Which form is seen; each form's own reading is tested beside its name."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from app.errors import InvalidRequest
from app.inputs.patterns import NothingThere
from app.inputs.pictures import Asked
from app.inputs.recognise import FORMS, read_input
from tests.images import labelled_files, labelled_zip, make_tar
from tests.inputs.reading import SAMPLES, taken, written


def test_an_archive_goes_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(labelled_zip())
    assert read_input([str(path)]) == path
    with pytest.raises(InvalidRequest, match="taken for an archive; --split changes nothing"):
        read_input([str(path)], Asked(split="test"))


def test_a_file_is_no_folder_whatever_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(labelled_zip())
    with pytest.raises(InvalidRequest, match="is no folder"):
        read_input([str(path)], Asked(form="folder"))


@pytest.mark.parametrize("path", ["absent", "absent-{0..3}.tar", "absent/*.parquet"])
def test_nothing_there_is_told_with_the_path(tmp_path: Path, path: str) -> None:
    with pytest.raises(NothingThere, match="There is nothing at"):
        read_input([str(tmp_path / path)])


def test_one_shard_missing_of_a_pattern_is_named(tmp_path: Path) -> None:
    for number in (0, 2):
        shutil.copy(SAMPLES / "webdataset" / "shapes-train-000000.tar", tmp_path / f"{number}.tar")
    with pytest.raises(NothingThere, match=r"There is nothing at .*/1\.tar"):
        read_input([str(tmp_path / "{0..2}.tar")])


def test_a_name_with_braces_that_is_there_is_no_pattern(tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "marks.parquet", tmp_path / "{a,b}.parquet")
    assert taken(tmp_path / "{a,b}.parquet", image_column="photo").name == "{a,b}.zip"


def test_files_of_several_forms_are_no_set(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="not files of one form"):
        read_input([str(SAMPLES / "marks.parquet"), str(SAMPLES / "webdataset" / "*.tar")])


def test_files_of_no_form_are_counted(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    for file in files:
        file.touch()
    for number, told in ((2, "1 other"), (3, "2 others")):
        with pytest.raises(InvalidRequest, match=f"a.txt and {told} are not files of one form"):
            read_input([str(file) for file in files[:number]])


def test_what_could_be_two_forms_is_asked_for(tmp_path: Path) -> None:
    folder = written(tmp_path, labelled_files(2, 2))
    shutil.copytree(SAMPLES / "hub" / "data", folder / "data")
    with pytest.raises(InvalidRequest, match="could be taken for") as told:
        taken(folder)
    assert "--form folder or --form parquet" in told.value.remedy
    assert "Parquet" in taken(folder, form="parquet").taken_for
    assert read_input([str(folder)], Asked(form="folder")) == folder


def test_files_that_only_look_like_datasets_do_not_disturb_label_folders(tmp_path: Path) -> None:
    folder = written(tmp_path, labelled_files(2, 2))
    pl.DataFrame({"file": ["a"], "sharpness": [0.5]}).write_parquet(folder / "notes.parquet")
    written(folder, {"state.json": "[", "dataset_info.txt": "", "backup.tar": make_tar({})})
    assert read_input([str(folder)]) == folder


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"folder"}))
def test_a_form_that_is_not_there_is_told(tmp_path: Path, form: str) -> None:
    folder = written(tmp_path, labelled_files(2, 2))
    with pytest.raises(InvalidRequest, match=r"Nothing in .* looks like"):
        taken(folder, form=form)
