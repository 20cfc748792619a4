"""The command line: what `task2vec` does, one function a command.

Answers go to stdout (`--json`: exactly what a program reads, nothing else), progress and errors to
stderr, an error always as the one line `error: what. remedy`.
"""

from __future__ import annotations

# isort: off
# In the order in which `task2vec --help` lists their commands.
from app.cli import (  # noqa: F401
    service,
    config,
    embed,
    tasks,
    neighbours,
    jobs,
    export,
    estimates,
    catalogue,
    timing,
    finetune,
    predict,
    outcomes,
    keys,
    audit,
    upkeep,
    backup,
    reference,
)

# isort: on
from app.cli.root import FAILED, INTERRUPTED, NO_SERVER, OK, USAGE, app

__all__ = ["FAILED", "INTERRUPTED", "NO_SERVER", "OK", "USAGE", "app"]
