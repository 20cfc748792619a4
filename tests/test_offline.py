"""Nothing leaves the machine: the whole service and its user, watched while a task is embedded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import shared_directory
from tests.commands import ROOT
from tests.images import labelled_files
from tests.jobs.conftest import PROBE, models_dir  # noqa: F401

PATIENCE_SECONDS = 120

# Python imports it by its name at its start, in every process that inherits the path: the worker is
# the service's child. What would go out is written down, and goes nowhere.
WATCH = """
import ipaddress, json, os, socket, sys

NAMED = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
CALLED = ("socket.connect", "socket.sendto", "socket.sendmsg")

def is_near(host):
    if isinstance(host, bytes):
        host = host.decode()
    try:
        return not host or host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

def tell(what):
    with open(os.environ["TEST_WATCHED"], "a") as file:
        file.write(json.dumps(what) + "\\n")

def watch(event, args):
    if event in NAMED:
        host = args[0]
    elif event in CALLED and args[0].family in (socket.AF_INET, socket.AF_INET6) and args[1]:
        host = args[1][0]
    else:
        return
    if not is_near(host):
        tell({"event": event, "host": str(host)})
        raise OSError(f"{event} {host}")

sys.addaudithook(watch)
tell({"process": sys.orig_argv})
"""


class Watched:
    """Processes with nothing of this one's environment that could keep them quiet."""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(WATCH)
        self._told = folder / "told"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "TEST_WATCHED": str(self._told),
            "TASK2VEC_DATA_DIR": str(folder / "data"),
            "TASK2VEC_THREADS": "1",
        }

    def run(self, *arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, env=self.environment, check=False
        )
        return done.stdout

    def begun(self, words: Sequence[str]) -> bool:
        """Whether there was a process with those in its command."""
        return any(set(words) <= set(each.get("process", [])) for each in self._lines())

    def calls(self) -> list[tuple[str, str]]:
        return [(each["event"], each["host"]) for each in self._lines() if "event" in each]

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._told.read_text().splitlines()]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        ("getaddrinfo('example.invalid', 443)", [("socket.getaddrinfo", "example.invalid")]),
        ("create_connection(('192.0.2.1', 443))", [("socket.getaddrinfo", "192.0.2.1")]),
        ("socket().connect(('192.0.2.1', 443))", [("socket.connect", "192.0.2.1")]),
        ("socket(type=2).sendto(b'', ('192.0.2.1', 53))", [("socket.sendto", "192.0.2.1")]),
        ("socket().connect(('127.0.0.1', 1))", []),
        ("getaddrinfo('localhost', 443)", []),
    ],
)
def test_whoever_would_leave_the_machine_is_seen(
    watched: Watched, call: str, seen: list[tuple[str, str]]
) -> None:
    watched.run("-c", f"from socket import *; {call}")
    assert watched.calls() == seen


@pytest.fixture
def small(tmp_path: Path, models_dir: Path) -> dict[str, str]:  # noqa: F811
    """The tiny probe, and of what is shipped all but the library."""
    directory = tmp_path / "models"
    directory.mkdir()
    (directory / "probes").symlink_to(models_dir / "probes")
    for kind in ("candidates", "devices", "recipes"):
        (directory / kind).symlink_to(shared_directory("models") / kind)
    return {"TASK2VEC_MODELS_DIR": str(directory), "TASK2VEC_PROBE": PROBE}


@pytest.mark.parametrize("models", ["small", pytest.param("shipped", marks=pytest.mark.slow)])
def test_a_task_is_embedded_and_looked_at_without_a_call_to_anywhere_else(
    watched: Watched, tmp_path: Path, small: dict[str, str], models: str
) -> None:
    watched.environment |= small if models == "small" else {}
    for path, data in labelled_files(2, 6).items():
        (tmp_path / "shapes" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shapes" / path).write_bytes(data)
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=watched.environment) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            embed = ("-m", "app.cli", "embed", str(tmp_path / "shapes"), "--server", url, "--json")
            task = json.loads(watched.run(*embed))
            assert task["status"] == "ready", task["problem"]
            with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
                here = f"/v1/tasks/{task['id']}"
                near = client.get(f"{here}/neighbours").json()["neighbours"]
                assert bool(near) == (models == "shipped")
                assert client.get(f"{here}/estimates").json()["estimates"]
                assert client.get(f"/tasks/{task['id']}").status_code == 200
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)
    assert watched.begun(["app.cli", "serve"])
    assert watched.begun(["app.jobs.worker"])
    assert watched.calls() == []
