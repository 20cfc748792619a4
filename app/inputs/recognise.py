"""Which form an input has, by what is there; where that is not plain, the user is asked."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from os.path import commonpath
from pathlib import Path

from app.errors import InvalidRequest
from app.inputs import coco, folders, hub_rows, tables, webdataset
from app.inputs.files import Files, LocalFiles
from app.inputs.hub import SCHEME, hub_files
from app.inputs.packed import Input
from app.inputs.pictures import Asked, Form
from app.inputs.splits import ALL

FORMS: dict[str, Form] = {
    "folder": folders.FORM,
    "table": tables.FORM,
    "parquet": hub_rows.PARQUET,
    "arrow": hub_rows.ARROW,
    "webdataset": webdataset.FORM,
    "coco": coco.FORM,
}

_BY_SUFFIX = {
    **dict.fromkeys(tables.SUFFIXES, "table"),
    ".parquet": "parquet",
    ".json": "coco",
}
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class NothingThere(InvalidRequest):
    """No file and no folder is called so."""


def read_input(paths: Sequence[str], asked: Asked | None = None) -> Input | Path:
    """The archive of what lies at a path, a pattern of paths or an hf:// URI; several paths are
    the shards of one set. A Path is an archive, or a folder of label folders, that goes as it is.

    Raises InvalidRequest where nothing is there, or where what is there is not plain: with what was
    seen and which option says more.
    """
    asked = asked or Asked()
    if len(paths) == 1 and paths[0].startswith(SCHEME):
        return _of_folder(*hub_files(paths[0]), asked)
    found = [path for each in paths for path in _expanded(each)]
    if len(found) == 1 and found[0].is_dir():
        return _of_folder(LocalFiles(found[0]), found[0].resolve().name, asked)
    return _of_files(found, asked)


def _of_files(paths: Sequence[Path], asked: Asked) -> Input | Path:
    kinds = {asked.form or _kind(path) for path in paths}
    if len(kinds) > 1 or (kinds == {None} and len(paths) > 1):
        raise InvalidRequest(
            "input-mixed",
            f"{paths[0]} and the {len(paths) - 1} others are not files of one form.",
            "Name shards of one form (.tar or .parquet), or one folder.",
        )
    form = kinds.pop()
    if form is None:
        _require_unasked("an archive", frozenset(), asked)
        return paths[0]
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
    found = {key: chosen for key, form in FORMS.items() if (chosen := form.find(files))}
    form = asked.form
    if form is None and len(found) > 1:
        seen = " and for ".join(f"{FORMS[key].called} ({_few(found[key])})" for key in found)
        raise InvalidRequest(
            "input-ambiguous",
            f"{files.at} could be taken for {seen}.",
            f"Say which: {' or '.join(f'--form {key}' for key in found)}.",
        )
    form = form or next(iter(found), None)
    if form is None or form not in found:
        if isinstance(files, LocalFiles) and asked.form in (None, "folder"):
            _require_unasked("a folder of label folders", frozenset(), asked)
            return files.root
        raise InvalidRequest(
            "input-unknown",
            f"Nothing in {files.at} looks like "
            f"{FORMS[form].called if form else 'a labelled image set'}.",
            "docs/reference.md lists what can be uploaded; --form says what it is.",
        )
    if form == "folder" and found[form] == [""] and isinstance(files, LocalFiles):
        _require_unasked("a folder of label folders", frozenset(), asked)
        return files.root
    return _read(form, files, found[form], name, asked)


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
                f"This was taken for {called}, of which --{option.replace('_', '-')} says nothing.",
                "Leave it out, or say what it is with --form.",
            )


def _expanded(path: str) -> Iterator[Path]:
    """A path that is there as it is written, or else a pattern of braces and wildcards."""
    if Path(path).exists():
        yield Path(path)
        return
    found = [
        Path(match)
        for each in _braces(path)
        for match in (_matching(each) if glob.has_magic(each) else [each])
    ]
    missing = next((each for each in found if not each.exists()), None)
    if not found or missing:
        raise NothingThere(
            "input-missing", f"There is nothing at {missing or path}.", "Check the path."
        )
    yield from found


def _matching(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern))  # noqa: PTH207 - it may be absolute


def _braces(pattern: str) -> list[str]:
    """`a-{000..002}.tar` and `{a,b}.tar`, as shells expand them; here for those that do not."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    if ends := _RANGE.fullmatch(match[1]):
        width = len(ends[1])
        parts = [f"{number:0{width}d}" for number in range(int(ends[1]), int(ends[2]) + 1)]
    else:
        parts = match[1].split(",")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [rest for part in parts for rest in _braces(f"{before}{part}{after}")]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "") or "here"
