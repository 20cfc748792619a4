"""What the service offers, docs/reference.md describes; what it describes is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from app.api.main import create_app
from app.cli import FAILED, INTERRUPTED, NO_SERVER, OK, USAGE, app
from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
ROWS = [line.split("|", 2)[1:] for line in REFERENCE.splitlines() if line.startswith("| ")]
OF_EVERY_COMMAND = {"--json", "--help", "--server", "--key"}
OF_CLIENTS = {"TASK2VEC_SERVER", "TASK2VEC_KEY", "TASK2VEC_DEBUG"}
UNLISTED_BY_OPENAPI = {"GET /metrics", "GET /docs", "GET /openapi.json"}


def _commands(group: Any, path: str = "task2vec") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _documented(pattern: str) -> set[str]:
    return {found for cell, _ in ROWS for found in re.findall(pattern, cell)}


COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_each_of_its_options_are_documented(name: str) -> None:
    rows = [" ".join(row) for row in ROWS if re.match(rf" `{name}\b", row[0])]
    assert rows, f"docs/reference.md has no row for `{name}`"
    options = {
        option
        for parameter in COMMANDS[name].params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("-")
    }
    # Of a switch, the side that changes something is enough.
    off = {f"--no-{option.removeprefix('--')}" for option in options} & options
    options -= {f"--{option.removeprefix('--no-')}" for option in off}
    assert {
        option for option in options - OF_EVERY_COMMAND if option not in " ".join(rows)
    } == set()


def test_every_documented_command_exists() -> None:
    named = _documented(r"`(task2vec [a-z]+(?: [a-z]+)?)")
    assert named == set(COMMANDS)


def test_settings_and_their_documentation_agree() -> None:
    variables = {f"TASK2VEC_{name.upper()}" for name in Settings.model_fields}
    assert _documented(r"`(TASK2VEC_[A-Z_]+)`") == variables
    assert set(re.findall(r"TASK2VEC_[A-Z_]+", REFERENCE)) == variables | OF_CLIENTS


def test_endpoints_and_their_documentation_agree() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert _documented(r"`((?:GET|POST|PATCH|PUT|DELETE) /[^` ]*)`") == served | UNLISTED_BY_OPENAPI


def test_exit_codes_are_documented() -> None:
    documented = {int(cell) for cell, _ in ROWS if cell.strip().isdigit()}
    assert documented == {OK, FAILED, USAGE, NO_SERVER, INTERRUPTED}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/reference.md"])
def test_links_to_files_lead_somewhere(page: str) -> None:
    source = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)\)", source.read_text(encoding="utf-8"))
    assert [link for link in links if not (source.parent / link).exists()] == []


@pytest.mark.parametrize("target", ["demo", "serve", "test", "check", "bench"])
def test_every_make_target_that_readers_need_exists_and_is_named(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    readers = (ROOT / "README.md").read_text(encoding="utf-8")
    readers += (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"make {target}" in readers
