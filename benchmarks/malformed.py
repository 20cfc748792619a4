"""Sends archives and images that are malformed or hostile: what becomes of them, and of memory.

    python -m benchmarks.malformed [--n 1400] [--seed 0]

Each is uploaded to the API, which runs in a process of its own; what it accepts is read there as a
worker reads it, images decoded. A case ends `refused` by the API (with what status), `refused` at
intake, or `read`. Anything else (a status of 500 or more, an exception that is no problem to be
told, the end of the process) is a failure and is listed. `added` is how far the process's resident
memory rose above what it had before the first case, as Linux keeps its peak. The last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.hostile import Case, corpus
from benchmarks.hostile.plain import files, zipped

MIB = 2**20
MOST_ADDED_MIB = 512
PATIENCE_SECONDS = 300.0  # for one case, also on a machine that does much else


@dataclass(frozen=True)
class Told:
    name: str
    outcome: str
    failed: str  # why, if it is a failure
    added_mib: float
    seconds: float


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=1400)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    found = summary(list(run(corpus(asked.n, asked.seed))))
    print(json.dumps(found))
    return 1 if found["failed"] or found["most_added_mib"] > MOST_ADDED_MIB else 0


def run(cases: Iterable[Case]) -> Iterator[Told]:
    """Every case in turn; a process that ended is followed by another."""
    reader: _Reader | None = None
    try:
        for name, data in cases:
            reader = reader or _Reader()
            told = reader.read(name, data)
            if told.failed:
                print(f"{told.name}: {told.failed}", file=sys.stderr)
            if not reader.is_alive:
                reader.close()
                reader = None
            yield told
    finally:
        if reader is not None:
            reader.close()


def summary(told: list[Told]) -> dict[str, Any]:
    worst = max(told, key=lambda each: each.added_mib)
    slowest = max(told, key=lambda each: each.seconds)
    outcomes = Counter(each.outcome for each in told)
    for outcome, count in outcomes.most_common():
        print(f"{count:6} {outcome}")
    print(f"most memory added: {worst.added_mib:.0f} MiB by {worst.name}")
    print(f"longest: {slowest.seconds:.1f} s for {slowest.name}")
    return {
        "cases": len(told),
        "outcomes": dict(outcomes.most_common()),
        "failed": [each.name for each in told if each.failed],
        "most_added_mib": round(worst.added_mib, 1),
        "most_added_by": worst.name,
        "longest_seconds": round(slowest.seconds, 2),
        "longest": slowest.name,
    }


class _Reader:
    """The other process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        there.close()
        self._here.recv()  # it is up
        self.is_alive = True

    def read(self, name: str, data: bytes) -> Told:
        began = time.monotonic()
        try:
            self._here.send_bytes(data)
            if not self._here.poll(PATIENCE_SECONDS):
                self._process.kill()
                return self._ended(name, f"took more than {PATIENCE_SECONDS:g} s", began)
            outcome, failed, added = self._here.recv()
        except (EOFError, OSError):
            self._process.join(10)
            return self._ended(name, f"ended the process: {self._process.exitcode}", began)
        return Told(name, outcome, failed, added / MIB, time.monotonic() - began)

    def _ended(self, name: str, why: str, began: float) -> Told:
        self.is_alive = False
        return Told(name, "failed", why, 0.0, time.monotonic() - began)

    def close(self) -> None:
        self._here.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()


def _serve(pipe: Connection) -> None:
    from fastapi.testclient import TestClient

    from app.api.main import create_app
    from app.settings import Settings

    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(data_dir=Path(directory))
        service = create_app(settings)
        with TestClient(
            service, base_url="http://localhost", raise_server_exceptions=False
        ) as client:
            _outcome(client, settings, zipped(files(Random(0))))
            before = _memory("VmRSS")
            pipe.send("ready")
            while True:
                try:
                    data = pipe.recv_bytes()
                except EOFError:
                    return
                Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
                outcome, failed = _outcome(client, settings, data)
                pipe.send((outcome, failed, max(0, _memory("VmHWM") - before)))


def _outcome(client: Any, settings: Any, data: bytes) -> tuple[str, str]:
    from app.embedding.dataset import read_labelled_images
    from app.errors import Task2VecError
    from app.limits import archive_limits

    response = client.post("/v1/tasks", files={"archive": ("a", data)})
    if response.status_code != 202:
        problem = response.json()
        code = str(problem.get("type", "")).removeprefix("/problems/")
        failed = response.text[:300] if response.status_code >= 500 or not code else ""
        return f"refused by the API: {response.status_code} {code}", failed
    try:
        read_labelled_images(
            [io.BytesIO(data)],
            size=224,
            label_kind="auto",
            limits=archive_limits(settings),
            max_image_pixels=settings.max_image_pixels,
        )
    except Task2VecError as error:
        failed = repr(error) if error.status >= 500 else ""
        return f"refused at intake: {error.status} {error.code}", failed
    except Exception as error:
        return "failed", repr(error)[:300]
    return "read", ""


def _memory(field: str) -> int:
    """Bytes; `VmRSS` is what the process has, `VmHWM` the most that it had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


if __name__ == "__main__":
    sys.exit(main())
