"""From a clone to the first answer: how long each wait of the README's two commands is.

    python -m benchmarks.first_walk [--keep DIR]

Clones this checkout, runs `make demo` there, then `make serve`, `task2vec embed` and `estimate` of
a folder, as a newcomer does. The install takes what pip takes to fetch its packages. The last line
is JSON, in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from app.demo import write_archives

ROOT = Path(__file__).resolve().parent.parent
READY = re.compile(r"The service is ready after (\d+) s")
SAID = {"ready": READY, "embedded": re.compile("Nearest to"), "answered": re.compile("Candidates")}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, help="where the clone is put, and stays")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        clone = asked.keep or Path(scratch, "clone")
        began = time.monotonic()
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        told = demo(clone, began) | own_pictures(clone, Path(scratch))
    for name, seconds in told.items():
        print(f"{name:<60} {seconds:6.1f} s")
    print(json.dumps(told))


def demo(clone: Path, began: float) -> dict[str, float]:
    """When each step of `make demo` was told, and for how long nothing was."""
    at: dict[str, float] = {}
    silent, last = 0.0, time.monotonic()
    command, wired = ["make", "demo"], subprocess.PIPE
    with subprocess.Popen(
        command, cwd=clone, stdout=wired, stderr=subprocess.STDOUT, text=True, env=bare()
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            silent, last = max(silent, time.monotonic() - last), time.monotonic()
            for name, pattern in SAID.items():
                if name not in at and (found := pattern.search(line)):
                    at[name] = last - began
                    if pattern is READY:
                        at = {"installed": last - began - int(found[1])} | at
    if process.returncode or not SAID.keys() <= at.keys():
        raise SystemExit(f"make demo ended with {process.returncode}, having told of {list(at)}.")
    told = {f"make demo, from the clone: {name}": seconds for name, seconds in at.items()}
    return told | {"make demo into a pipe: longest silence": silent}


def own_pictures(clone: Path, scratch: Path) -> dict[str, float]:
    folder = scratch / "pictures"
    shutil.unpack_archive(write_archives(scratch)[0], folder)
    began = time.monotonic()
    with served(clone, scratch / "data") as url:
        ready = time.monotonic()
        for command in (["embed", str(folder)], ["estimate", folder.name]):
            there = [str(clone / ".venv" / "bin" / "task2vec"), *command, "--server", url]
            subprocess.run(there, check=True, env=bare(), capture_output=True)
        return {
            "make serve: until it is ready": ready - began,
            "task2vec embed, then estimate, of a folder": time.monotonic() - ready,
        }


@contextmanager
def served(clone: Path, data: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    settings = {"TASK2VEC_DATA_DIR": str(data), "TASK2VEC_PORT": port}
    with subprocess.Popen(
        ["make", "-s", "serve"],
        cwd=clone,
        env=bare() | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/readyz", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(process.pid, signal.SIGTERM)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"make serve ended with {process.returncode}.")


def bare() -> dict[str, str]:
    """Without our settings, and without this checkout's environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TASK2VEC_")}
    own = str(Path(sys.prefix, "bin"))
    path = [each for each in kept.get("PATH", "").split(os.pathsep) if each != own]
    return kept | {"PATH": os.pathsep.join(path), "VIRTUAL_ENV": ""}


if __name__ == "__main__":
    main()
