"""Another process that is killed while it works."""

from __future__ import annotations

import subprocess
import sys
import time


def run_and_kill(script: str, *arguments: str, seconds: float) -> None:
    """Runs a Python script until it has printed a line, and so long after; then SIGKILL."""
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    process.wait()
    process.stdout.close()
