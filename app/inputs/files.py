"""The files of an input by their names, on this disk or in a file system of fsspec."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from app.errors import InvalidRequest
from app.folder import visible_files


class Files(Protocol):
    """Names are relative to one folder, with forward slashes; `at` is what users call it."""

    at: str
    fetched: bool

    @property
    def names(self) -> list[str]:
        """In order; hidden files stay out."""

    def has(self, name: str) -> bool: ...

    def read(self, name: str) -> bytes: ...

    def local(self, name: str) -> AbstractContextManager[Path]:
        """The file on this disk, for as long as it is looked at."""


class LocalFiles:
    fetched = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.at = str(root)

    @cached_property
    def names(self) -> list[str]:
        return [file.relative_to(self.root).as_posix() for file in visible_files(self.root)]

    def has(self, name: str) -> bool:
        try:
            return Path(self.root, name).is_file()
        except OSError:  # a text too long for a name
            return False

    def read(self, name: str) -> bytes:
        return Path(self.root, name).read_bytes()

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        yield Path(self.root, name)


class FetchedFiles:
    """`told` turns the file system's errors into words for the user. Of files that are wanted on
    this disk one is kept at a time, the last."""

    fetched = True

    def __init__(
        self, at: str, system: Any, root: str, told: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.at = at
        self._system = system
        self._root = root.rstrip("/")
        self._told = told
        self._held = ""
        self._folder = Path(tempfile.mkdtemp(prefix="task2vec-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    @cached_property
    def names(self) -> list[str]:
        with self._told():
            found = self._system.find(self._root)
        relative = sorted(str(path).removeprefix(f"{self._root}/") for path in found)
        return [name for name in relative if not any(p.startswith(".") for p in name.split("/"))]

    def has(self, name: str) -> bool:
        return name in self._known

    def read(self, name: str) -> bytes:
        with self._told():
            return bytes(self._system.cat_file(f"{self._root}/{name}"))

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        path = self._folder / Path(self._held).name
        if self._held != name:
            if self._held:
                path.unlink()
            self._held, path = "", self._folder / Path(name).name
            with self._told():
                self._system.get_file(f"{self._root}/{name}", str(path))
            self._held = name
        yield path

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)


def read_json(files: Files, name: str) -> Any:
    data = files.read(name)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            "input-damaged", f"{name} is no JSON ({error}).", "Fetch or write it again, whole."
        ) from error
