"""Which form an input has, by what is there; where that is not plain, the user is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os.path import commonpath
from pathlib import Path

from app.embedding.archive import is_archive
from app.embedding.labels import LABELS_FILES
from app.errors import InvalidRequest
from app.inputs import coco, folders, hub_rows, tables, webdataset
from app.inputs.files import Files, LocalFiles
from app.inputs.hub import SCHEME, hub_files
from app.inputs.packed import Input
from app.inputs.patterns import expanded
from app.inputs.pictures import Asked, Form
from app.inputs.splits import ALL
from app.words import counted

FORMS: dict[str, Form] = {
    "folder": folders.FORM,
    "table": tables.FORM,
    "parquet": hub_rows.PARQUET,
    "arrow": hub_rows.ARROW,
    "webdataset": webdataset.FORM,
    "coco": coco.FORM,
}

_START_BYTES = 512  # a block of tar

_BY_SUFFIX = {
    **dict.fromkeys(tables.SUFFIXES, "table"),
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".json": "coco",
}


def read_input(paths: Sequence[str], asked: Asked | None = None) -> Input | Path:
    """The archive of what lies at a path, a pattern of paths or an hf:// URI; several paths are
    the shards of one set. A Path is an archive, or a folder of label folders, that goes as it is.

    Raises InvalidRequest where nothing is there, or where what is there is not plain: with what was
    seen and which option says more.
    """
    asked = asked or Asked()
    if len(paths) == 1 and paths[0].startswith(SCHEME):
        return _of_folder(*hub_files(paths[0]), asked)
    found = expanded(paths)
    if len(found) == 1 and found[0].is_dir():
        return _of_folder(LocalFiles(found[0]), found[0].resolve().name, asked)
    return _of_files(found, asked)


def _of_files(paths: Sequence[Path], asked: Asked) -> Input | Path:
    kinds = {asked.form or _kind(path) for path in paths}
    if len(kinds) > 1 or (kinds == {None} and len(paths) > 1):
        raise InvalidRequest(
            "input-mixed",
            f"{paths[0]} and {counted(len(paths) - 1, 'other')} are not files of one form.",
            "Name shards of one form (.tar or .parquet), or one folder.",
        )
    form = kinds.pop()
    if form == "folder":
        raise InvalidRequest("input-unfit", f"{paths[0]} is no folder.", "Leave out --form folder.")
    if form is None:
        return _as_it_is(paths[0], asked)
    folder = Path(commonpath([path.absolute().parent for path in paths]))
    if form == "coco" and folder.name == "annotations":
        folder = folder.parent
    names = [path.absolute().relative_to(folder).as_posix() for path in paths]
    if asked.split is None:  # whoever names files means them
        asked = replace(asked, split=ALL)
    name = paths[0].name.partition(".")[0] if len(paths) == 1 else folder.name
    return _read(form, LocalFiles(folder), names, name, asked)


def _kind(path: Path) -> str | None:
    if path.name.endswith(webdataset.SUFFIXES):
        return "webdataset" if webdataset.is_shard(path) else None
    return _BY_SUFFIX.get(path.suffix)


def _of_folder(files: Files, name: str, asked: Asked) -> Input | Path:
    if asked.form is None and isinstance(files, LocalFiles) and any(map(files.has, LABELS_FILES)):
        return _as_it_is(files.root, asked)
    forms = [asked.form] if asked.form else list(FORMS)
    found = {form: chosen for form in forms if (chosen := FORMS[form].find(files))}
    if len(found) > 1:
        seen = " and for ".join(f"{FORMS[form].called} ({_few(found[form])})" for form in found)
        raise InvalidRequest(
            "input-ambiguous",
            f"{files.at} could be taken for {seen}.",
            f"Say which: {' or '.join(f'--form {form}' for form in found)}.",
        )
    form = asked.form or next(iter(found), "folder")
    if form == "folder" and found.get(form, [""]) == [""] and isinstance(files, LocalFiles):
        return _as_it_is(files.root, asked)
    if form not in found:
        looked_for = FORMS[form].called if asked.form else "a labelled image set"
        raise InvalidRequest(
            "input-unknown",
            f"Nothing in {files.at} looks like {looked_for}.",
            "docs/reference.md lists what can be uploaded; --form says what it is.",
        )
    return _read(form, files, found[form], name, asked)


def _as_it_is(path: Path, asked: Asked) -> Path:
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
        if not is_archive(start):
            raise InvalidRequest(
                "input-unknown",
                f"{path} is no archive (zip, tar, tar.gz, tar.zst), and its name ends like no "
                "dataset's.",
                "docs/reference.md lists what can be uploaded; --form says what it is.",
            )
    _require_unasked("a plain folder" if path.is_dir() else "an archive", frozenset(), asked)
    return path


def _read(form: str, files: Files, names: Sequence[str], name: str, asked: Asked) -> Input:
    _require_unasked(FORMS[form].called, FORMS[form].takes, asked)
    return Input(name, FORMS[form].read(files, names, asked))


def _require_unasked(called: str, takes: frozenset[str], asked: Asked) -> None:
    """An option that changes nothing is a misunderstanding."""
    for option in ("split", "image_column", "label_column"):
        value = getattr(asked, option)
        if value is not None and option not in takes and value != ALL:
            raise InvalidRequest(
                "option-unfit",
                f"This was taken for {called}; --{option.replace('_', '-')} changes nothing there.",
                "Leave it out, or say what it is with --form.",
            )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "") or "here"
