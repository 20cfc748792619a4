"""Columns of numbers on disk, a row a task, which many processes read and one at a time extends.

A directory holds a file a column and a manifest. The manifest says how many rows there are: what a
process that was killed wrote beyond them is nobody's, and the next writer writes over it. Columns
reach the disk before the manifest that counts them, and a manifest replaces the last one at once.
A directory in which anything does not fit counts as empty: all of it can be made anew from the
database.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from app.errors import Unavailable
from app.files import whole

Arrays = Mapping[str, npt.NDArray[Any]]

_LOCK_SECONDS = 60.0
_MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Column:
    """`width` numbers a row; a `versioned` column may be replaced as a whole."""

    dtype: str
    width: int
    versioned: bool = False

    @property
    def row_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * self.width


@dataclass(frozen=True, slots=True)
class Manifest:
    """What of the files counts.

    `seen`     highest seq that was taken in or passed over, `buried` highest grave
    `version`  of the versioned columns: whoever made something of an older one makes it again
    `fitted`   rows that there were when it was written
    """

    rows: int = 0
    seen: int = 0
    buried: int = 0
    version: int = 0
    fitted: int = 0


@dataclass(frozen=True, slots=True)
class _View:
    """What a manifest counts, mapped as it is asked for."""

    manifest: Manifest
    mapped: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


class Shelf:
    """One process's view; `manifest` and columns are as they were at the last `refresh`.

    Threads may read while one writes: who has a column's rows finds them in all columns later on.
    """

    def __init__(self, directory: Path, columns: Mapping[str, Column]) -> None:
        self._directory = directory
        self._columns = dict(columns)
        self._lock = FileLock(directory.with_name(f"{directory.name}.lock"))
        self._stamp: tuple[int, int] | None = None
        self._view = _View(Manifest())
        self.refresh()

    @property
    def manifest(self) -> Manifest:
        return self._view.manifest

    @property
    def directory(self) -> Path:
        return self._directory

    @property
    def row_bytes(self) -> int:
        return sum(column.row_bytes for column in self._columns.values())

    def __len__(self) -> int:
        return self.manifest.rows

    def is_versioned(self, name: str) -> bool:
        return self._columns[name].versioned

    def column(self, name: str) -> npt.NDArray[Any]:
        """(rows, width), mapped and read-only."""
        view = self._view
        if name not in view.mapped:
            view.mapped[name] = self._map(name, view.manifest)
        return view.mapped[name]

    def expect(self, name: str, rows: npt.NDArray[np.int64]) -> None:
        """Has the system read rows ahead, side by side, where they may not all be in memory."""
        column = self._columns[name]
        if not (len(rows) and self._exceeds_memory(column) and hasattr(os, "posix_fadvise")):
            return
        handle = os.open(self._path(name, self.manifest.version), os.O_RDONLY)
        try:
            breaks = np.flatnonzero(np.diff(rows) != 1) + 1
            for run in np.split(rows, breaks):
                at, size = int(run[0]) * column.row_bytes, len(run) * column.row_bytes
                os.posix_fadvise(handle, at, size, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(handle)

    def refresh(self) -> bool:
        """Looks whether another process has written; whether it had."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return False
        manifest = self._read_manifest()
        if manifest != self.manifest:
            self._view = _View(manifest)
        self._stamp = stamp
        return True

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nobody else writes meanwhile; what others wrote before is there.

        Raises Unavailable where somebody holds the lock for a minute.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            with self._lock.acquire(timeout=_LOCK_SECONDS):
                self.refresh()
                yield
        except Timeout as error:
            raise Unavailable(
                "index-busy",
                "Another process has been writing the search index for a minute.",
                "Try again; if it stays so, look for a process that hangs.",
            ) from error

    def append(self, arrays: Arrays, **counted: int) -> None:
        """Rows behind the last one, and fields of the manifest that change with them."""
        count = len(next(iter(arrays.values())))
        at = self.manifest.rows
        if count:
            for name, values in arrays.items():
                self._write(self._path(name, self.manifest.version), name, at, values)
        self._publish(replace(self.manifest, rows=at + count, **counted))

    def overwrite(self, name: str, rows: Iterable[int], value: float) -> None:
        """Whole rows in place, which may be as before or as after where a crash comes between."""
        column = self._columns[name]
        data = np.full(column.width, value, column.dtype).tobytes()
        handle = os.open(self._path(name, self.manifest.version), os.O_WRONLY)
        try:
            for row in rows:
                os.pwrite(handle, data, row * column.row_bytes)
            os.fsync(handle)
        finally:
            os.close(handle)

    def replace(
        self, name: str, pieces: Iterable[npt.NDArray[Any]], version: int, **counted: int
    ) -> None:
        """All of a versioned column; who maps the last version keeps it until it looks again."""
        path, at = self._path(name, version), 0
        for values in pieces:
            self._write(path, name, at, values)
            at += len(values)
        last = self._path(name, self.manifest.version)
        self.publish(version=version, **counted)
        last.unlink(missing_ok=True)

    def publish(self, **counted: int) -> None:
        """Fields of the manifest."""
        self._publish(replace(self.manifest, **counted))

    def _write(self, path: Path, name: str, at: int, values: npt.NDArray[Any]) -> None:
        column = self._columns[name]
        data = np.ascontiguousarray(values, dtype=column.dtype).reshape(len(values), column.width)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            offset = at * column.row_bytes
            view = memoryview(data.tobytes())
            while view:
                written = os.pwrite(handle, view, offset)
                view, offset = view[written:], offset + written
            os.fsync(handle)
        finally:
            os.close(handle)

    def _publish(self, manifest: Manifest) -> None:
        described = {
            **asdict(manifest),
            "columns": {n: [c.dtype, c.width] for n, c in self._columns.items()},
        }
        with whole(self._manifest_path) as scratch:
            scratch.write_text(json.dumps(described))
        self._view, self._stamp = _View(manifest), self._stamp_now()

    def _read_manifest(self) -> Manifest:
        """As it stands, or an empty one where it or a file it counts on does not fit."""
        try:
            described = json.loads(self._manifest_path.read_text())
            columns = described.pop("columns")
            manifest = Manifest(**described)
            fits = columns == {n: [c.dtype, c.width] for n, c in self._columns.items()} and all(
                manifest.rows * column.row_bytes
                <= self._path(name, manifest.version).stat().st_size
                for name, column in self._columns.items()
                if manifest.rows
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return Manifest()
        return manifest if fits else Manifest(version=manifest.version + 1)

    def _map(self, name: str, manifest: Manifest) -> npt.NDArray[Any]:
        column, rows = self._columns[name], manifest.rows
        if not rows:
            return np.empty((0, column.width), column.dtype)
        path = self._path(name, manifest.version)
        with path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), rows * column.row_bytes, access=mmap.ACCESS_READ)
        if self._exceeds_memory(column):
            # Or every row that is not in memory would bring the megabytes behind it along.
            pages.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(pages, column.dtype).reshape(rows, column.width)

    def _exceeds_memory(self, column: Column) -> bool:
        return self.manifest.rows * column.row_bytes > _MEMORY_BYTES // 2

    def _stamp_now(self) -> tuple[int, int] | None:
        try:
            status = self._manifest_path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _path(self, name: str, version: int) -> Path:
        suffix = f"-{version}" if self._columns[name].versioned else ""
        return self._directory / f"{name}{suffix}.column"

    @property
    def _manifest_path(self) -> Path:
        return self._directory / "manifest.json"
