"""Every code block of the documentation runs, in order, against a service that it started itself.

Before a block may stand `<!-- not run: WHY -->`, and before one that starts something that goes on,
`<!-- left running -->`. Blocks of `text` are output; whatever else is in no language that runs is
named below.
"""

from __future__ import annotations

import ast
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from markdown_it import MarkdownIt

from tests.commands import ROOT, with_command
from tests.images import drawing

ADDRESS = "127.0.0.1:8000"
STARTED_SECONDS, MOST_SECONDS = 120, 600
"""Until a service that says nothing, or a block that does not end, is given up."""
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
LEFT_RUNNING = "<!-- left running -->"
RUNS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
IN_ONE_SESSION = {"docs/client.md"}  # tests/client/test_task2vec.py runs it as one script
SHOWN = {"text", "toml"}  # output; and a file of settings, which tests/test_settings.py reads


class Block(NamedTuple):
    language: str
    text: str
    line: int
    not_run: str
    """Why."""
    left_running: bool


def blocks_of(page: str) -> list[Block]:
    tokens = MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8"))
    found = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type in {"fence", "code_block"}:
            said = before.content.strip() if before and before.type == "html_block" else ""
            why = NOT_RUN.fullmatch(said)
            language = token.info.strip() if token.type == "fence" else "an indented block"
            line = token.map[0] + 1 if token.map else 0
            running = said == LEFT_RUNNING
            found.append(Block(language, token.content, line, why[1] if why else "", running))
    return found


PAGES = sorted(
    str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
)
BLOCKS = {page: blocks for page in PAGES if (blocks := blocks_of(page))}


@pytest.mark.parametrize("page", BLOCKS)
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    for block in BLOCKS[page]:
        where = f"{page}:{block.line}"
        assert block.language in RUNS.keys() | SHOWN, f"{where} is {block.language or 'unnamed'}"
        if block.language == "bash":
            subprocess.run(["bash", "-n", "-c", block.text], check=True)
        elif block.language == "python":
            ast.parse(block.text, where)


def test_the_blocks_that_do_not_run_are_these() -> None:
    """So that none is left out unseen."""
    left_out = {
        (page, block.text.strip().splitlines()[0], block.not_run)
        for page, blocks in BLOCKS.items()
        for block in blocks
        if block.not_run
    }
    assert left_out == LEFT_OUT


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "TASK2VEC_PORT": address.rpartition(":")[2],
        "TASK2VEC_SERVER": f"http://{address}",
        "TASK2VEC_THREADS": "2",
    }
    return with_command(tmp_path / "bin", settings)


def here(block: Block, environment: dict[str, str]) -> list[str]:
    address = environment["TASK2VEC_SERVER"].removeprefix("http://")
    return [*RUNS[block.language], block.text.replace(ADDRESS, address)]


def material(folder: Path) -> None:
    """What the README takes for granted: labelled pictures, and a table of earlier runs."""
    for kind in ("circle", "square", "triangle"):
        for seed in range(10):
            path = folder / "mushrooms" / kind / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            drawing(kind, seed).save(path)
    shutil.make_archive(str(folder / "mushrooms"), "zip", folder / "mushrooms")
    known = [path.stem for path in (ROOT / "models" / "candidates").glob("*.toml")]
    runs = pl.read_csv(ROOT / "models" / "outcomes" / "grid.csv", infer_schema=False)
    runs = runs.filter(pl.col("model").is_in(known)).with_columns(device=pl.lit("cpu-2core"))
    runs.write_csv(folder / "runs.csv")


@contextmanager
def running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    """What goes on, from its first line on stdout to the end of the page."""
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdout is not None
    with process:
        try:
            assert select.select([process.stdout], [], [], STARTED_SECONDS)[0], "says nothing"
            assert process.stdout.readline(), (folder / "service.log").read_text()
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        page
        for page, blocks in BLOCKS.items()
        if any(block.language in RUNS and not block.not_run for block in blocks)
        and page not in IN_ONE_SESSION
    ],
)
def test_the_blocks_of_a_page_run_in_their_order(
    page: str, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    if page == "README.md":
        material(folder)
    with ExitStack() as stack:
        for block in BLOCKS[page]:
            if block.language not in RUNS or block.not_run:
                continue
            command = here(block, environment)
            if block.left_running:
                stack.enter_context(running(command, environment, folder))
                continue
            done = subprocess.run(
                command,
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=MOST_SECONDS,
            )
            told = f"{page}:{block.line}\n{block.text}\n{done.stdout}\n{done.stderr}"
            assert done.returncode == 0, told


LEFT_OUT = {
    (
        "README.md",
        "make demo      # installs into .venv, then: four real image sets, neighbours, estimates",
        "installs some gigabytes",
    ),
    (
        "README.md",
        "docker compose -f deploy/compose.yaml run --rm task2vec keys create me    # one node: API and worker",
        "needs Docker",
    ),
    (
        "docs/operations.md",
        "docker compose -f deploy/compose.yaml run --rm task2vec keys create me",
        "needs Docker",
    ),
    (
        "docs/operations.md",
        "helm install task2vec deploy/helm/task2vec --set blobUrl=s3://task2vec/blobs",
        "needs Kubernetes",
    ),
    ("docs/quickstart.md", "make serve", "installs some gigabytes"),
    ("docs/quickstart.md", "python3 -m venv .venv", "installs some gigabytes"),
}
