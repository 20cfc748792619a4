"""The command `task2vec` of this checkout, by its name on the path, as people type it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def with_command(directory: Path, environment: dict[str, str] | None = None) -> dict[str, str]:
    """An environment whose path leads to `task2vec`, and to the Python that runs the tests."""
    command = directory / "task2vec"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(f"#!{sys.executable}\nfrom app.cli import app\napp()\n")
    command.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TASK2VEC_")}
    path = f"{directory}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT)} | (environment or {})
