"""What the shell completes: in a real shell at a terminal, installed as the reference says."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.commands import with_command

START_FILES = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}
SLOW = pytest.mark.slow
SHOWN_SECONDS = 60
"""Until a shell that shows nothing is given up: nothing is measured by it."""


class Shell:
    """An interactive shell on a terminal of its own, in an empty home."""

    def __init__(self, name: str, home: Path) -> None:
        self._terminal, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (24, 500))  # nothing is to be broken into lines
        environment = with_command(home / "bin", {"HOME": str(home), "TERM": "xterm"})
        self._process = subprocess.Popen(
            ["setsid", "--ctty", name, "-i"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            cwd=home,
        )
        os.close(theirs)

    def type(self, keys: str, until: str) -> None:
        """Returns once the terminal showed that, and then nothing more for a moment."""
        os.write(self._terminal, keys.encode())
        shown, end = "", time.monotonic() + SHOWN_SECONDS
        while time.monotonic() < end:
            if select.select([self._terminal], [], [], 0.2)[0]:
                shown += os.read(self._terminal, 65536).decode(errors="replace")
            elif until in shown:
                return
        pytest.fail(f"{until!r} is not in {shown!r}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.fixture(params=["bash", pytest.param("zsh", marks=SLOW), pytest.param("fish", marks=SLOW)])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    name = request.param
    if shutil.which(name) is None:
        assert name != "bash", "make itself needs it"
        pytest.skip(f"{name} is not installed")
    start_file = tmp_path / START_FILES[name]
    start_file.parent.mkdir(parents=True, exist_ok=True)
    start_file.touch()
    # Without it fish reads all manuals of the machine, in a process that outlives it.
    (tmp_path / ".local" / "share" / "fish" / "generated_completions").mkdir(parents=True)
    with closing(Shell(name, tmp_path)) as first:
        first.type("task2vec --install-completion\n", until=f"{name} completion installed in")
    with closing(Shell(name, tmp_path)) as second:
        if name == "zsh":  # the first tab of a session only loads the function
            second.type("task2vec \t", until="\a")
            second.type("\x15", until="")
        yield second


def test_a_shell_completes_commands_choices_and_names_of_cards(shell: Shell) -> None:
    shell.type("task2vec neigh\t", until="bours")
    shell.type("mushrooms --metric asymmetric_\t", until="kl")
    shell.type("\x15task2vec finetune mushrooms convnext_at\t", until="d2_in1k")
    shell.type("--recipe discrim\t", until="inative")
