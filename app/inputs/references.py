"""The image that a table or an annotation names: by path, part of a path, or stem."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import PurePosixPath

from app.errors import InvalidRequest
from app.inputs.fetch import fetch, is_uri
from app.inputs.files import Files
from app.inputs.splits import split_of

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
)


def is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


class References:
    """Of one table: paths are relative to its folder first."""

    def __init__(self, files: Files, table: str) -> None:
        self._files = files
        self._table = table
        self._folder = PurePosixPath(table).parent

    def find(self, reference: str) -> Callable[[], bytes] | None:
        """How to read what is meant; None where nothing is. A URI is taken at its word."""
        if is_uri(reference):
            return partial(fetch, reference.strip())
        name = self._name(reference.replace("\\", "/"))
        return None if name is None else partial(self._files.read, name)

    def names_an_image(self, reference: str) -> bool:
        """Or more than one, of which one would have to be chosen."""
        try:
            return self.find(reference) is not None
        except InvalidRequest:
            return True

    def _name(self, reference: str) -> str | None:
        path = PurePosixPath(reference)
        beside = posixpath.normpath(self._folder / path)
        if path.name and self._files.has(beside):
            return beside
        lying = self._by_name.get(path.name, []) or self._by_stem.get(path.name, [])
        suffix = f"/{path}"
        meant = [n for n in lying if f"/{n}".endswith(suffix) or _bare(f"/{n}").endswith(suffix)]
        if len(meant) > 1:  # train.csv means those of train/
            meant = [name for name in meant if split_of(name) == split_of(self._table)] or meant
        if len(meant) > 1:
            raise InvalidRequest(
                "image-ambiguous",
                f"{self._table}: {reference!r} may be {meant[0]} or {meant[1]}.",
                "Write paths with their folders, or take the other file away.",
            )
        return meant[0] if meant else None

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return self._indexed(lambda name: PurePosixPath(name).name)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return self._indexed(lambda name: PurePosixPath(name).stem)

    def _indexed(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        index: defaultdict[str, list[str]] = defaultdict(list)
        for name in self._files.names:
            if is_image(name):
                index[key(name)].append(name)
        return index


def _bare(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
