"""What the service offers, docs/reference.md describes; what it describes is there."""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from fastapi.routing import APIRoute
from typer.testing import CliRunner

from app.api import pages
from app.api.main import create_app
from app.cli import FAILED, INTERRUPTED, NO_SERVER, OK, USAGE, app
from app.cli.config import NO_SETTINGS
from app.embedding.distance import METRICS
from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/scaling.md")
    ),
    *sorted((ROOT / "docs").rglob("*.md")),
]
ROWS = [line.split("|", 2)[1:] for line in REFERENCE.splitlines() if line.startswith("| ")]
OF_EVERY_COMMAND = {"--json", "--help", "--server", "--key"}
OPTION = r"(?<![\w-])-{1,2}[a-z][a-z-]*"
OF_EVERY_LIST = {"limit", "cursor", "format"}
# Defaults that are no value one could set.
IN_WORDS = {
    "embedding_memory_mib": "half of what is free",
    "models_dir": "what ships",
    "oidc_issuer": "none",
    "oidc_audience": "none",
    "database_url": "SQLite in the data directory",
    "jobs_url": "with the database on PostgreSQL, else a file in the data directory",
    "blob_url": "`blobs/` in the data directory",
    "blob_public_url": "where the service reaches it",
}
UNLISTED_BY_OPENAPI = {"GET /metrics", "GET /docs", "GET /openapi.json"}


def _commands(group: Any, path: str = "task2vec") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _options(command: Any) -> set[str]:
    return {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("-")
    }


def _documented(pattern: str) -> set[str]:
    return {found for cell, _ in ROWS for found in re.findall(pattern, cell)}


COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_each_of_its_options_are_documented(name: str) -> None:
    rows = [" ".join(row) for row in ROWS if re.match(rf" `{name}\b", row[0])]
    assert rows, f"docs/reference.md has no row for `{name}`"
    options = _options(COMMANDS[name])
    # Of a switch, the side that changes something is enough.
    off = {f"--no-{option.removeprefix('--')}" for option in options} & options
    options -= {f"--{option.removeprefix('--no-')}" for option in off}
    assert options - OF_EVERY_COMMAND - set(re.findall(OPTION, " ".join(rows))) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_programs(name: str) -> None:
    """Without exception, as the reference says."""
    (told,) = (each for each in COMMANDS[name].params if "--json" in each.opts)
    assert (told.name, told.is_flag, told.default) == ("as_json", True, False)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_choice_breaks_in_the_help_of_a_narrow_terminal(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [*name.split()[1:], "--help"]).stdout
    broken = [line for line in shown.splitlines() if re.search(r"<(?!=)[^>]*$", line)]
    assert broken == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_row_names_no_option_that_is_not_there(name: str) -> None:
    there = {option for command in COMMANDS.values() for option in _options(command)}
    (*rows,) = (" ".join(row) for row in ROWS if re.match(rf" `{name}\b", row[0]))
    named = {each for each in re.findall(OPTION, " ".join(rows)) if each.startswith("--")}
    assert named - there == set()


def test_options_of_the_command_itself_are_documented() -> None:
    options = _options(typer.main.get_command(app))
    assert options - set(re.findall(OPTION, REFERENCE)) <= OF_EVERY_COMMAND


def test_every_documented_command_exists() -> None:
    named = _documented(r"`(task2vec [a-z]+(?: [a-z]+)?)")
    assert named == set(COMMANDS)


def test_settings_and_their_documentation_agree() -> None:
    variables = {f"TASK2VEC_{name.upper()}" for name in Settings.model_fields}
    assert _documented(r"`(TASK2VEC_[A-Z_]+)`") == variables
    assert set(re.findall(r"TASK2VEC_[A-Z_]+", REFERENCE)) == variables | NO_SETTINGS


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_settings_default_is_the_documented_one(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Setting it to what the table says changes nothing."""
    for variable in [variable for variable in os.environ if variable.startswith("TASK2VEC_")]:
        monkeypatch.delenv(variable)
    (row,) = (row for row in ROWS if row[0].strip() == f"`TASK2VEC_{name.upper()}`")
    documented = row[1].split("|")[0].strip()
    default = getattr(Settings(), name)
    if name in IN_WORDS:
        assert documented == IN_WORDS[name]
        return
    if size := re.fullmatch(r"(\d+) (MiB|GiB)", documented):
        documented = f"`{int(size[1]) * {'MiB': 2**20, 'GiB': 2**30}[size[2]]}`"
    assert re.fullmatch(r"`[^`]+`", documented)
    monkeypatch.setenv(f"TASK2VEC_{name.upper()}", documented.strip("`"))
    assert getattr(Settings(), name) == default


def test_metrics_and_their_documentation_agree() -> None:
    paragraph = REFERENCE.partition("\nMetrics: ")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", paragraph)) == set(METRICS)


def test_endpoints_and_their_documentation_agree() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert _documented(r"`((?:GET|POST|PATCH|PUT|DELETE) /[^` ]*)`") == served | UNLISTED_BY_OPENAPI


def test_every_query_parameter_is_documented() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    missing = [
        f"{path} {parameter['name']}"
        for path, methods in paths.items()
        for method, operation in methods.items()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
        and parameter["name"] not in OF_EVERY_LIST
        and not any(
            f"`{method.upper()} {path}`" in row[0] and f"`{parameter['name']}" in row[1]
            for row in ROWS
        )
    ]
    assert missing == []


def test_every_field_of_a_json_body_is_documented() -> None:
    """In the endpoint's row, or where that row leads: tables of cards and of outcomes."""
    document = create_app(Settings()).openapi()
    tables = " ".join(" ".join(row) for row in ROWS)
    missing = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
            row = " ".join(row[1] for row in ROWS if f"`{method.upper()} {path}`" in row[0])
            leads_on = "(#cards)" in row or "(#outcomes)" in row
            told = tables if leads_on else row
            missing += [
                f"{method.upper()} {path} {field}"
                for field in document["components"]["schemas"].get(name, {}).get("properties", {})
                if not re.search(rf"\b{field}\b", told)
            ]
    assert missing == []


def test_pages_and_their_documentation_agree() -> None:
    served = {
        re.sub(r"\{\w+\}", "ID", route.path)
        for router in (*pages.ROUTERS, pages.login.router)
        for route in router.routes
        if isinstance(route, APIRoute)
    }
    table = REFERENCE.partition("\n## Pages")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `/")]
    told = {
        re.sub(r"\b[A-Z]+\b", "ID", path) for row in rows for path in re.findall(r"`(/[^`?]*)", row)
    }
    assert told | {"/logout"} == served
    assert "`POST /logout`" in table


def test_exit_codes_are_documented() -> None:
    documented = {int(cell) for cell, _ in ROWS if cell.strip().isdigit()}
    assert documented == {OK, FAILED, USAGE, NO_SERVER, INTERRUPTED}


def test_the_changelog_names_the_space_whose_numbers_are_pinned() -> None:
    golden = (ROOT / "tests" / "embedding" / "test_golden.py").read_text(encoding="utf-8")
    (space_id,) = re.findall(r'space_id == "([0-9a-f]+)"', golden)
    assert f"`{space_id}`" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_decision_is_numbered_once_and_begins_with_its_number() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    numbers = [int(record.name[:4]) for record in records]
    assert numbers == list(range(1, len(records) + 1))
    for number, record in zip(numbers, records, strict=True):
        assert record.read_text(encoding="utf-8").startswith(f"# {number}. ")


def _anchors(page: Path) -> set[str]:
    """Of its headings, as those who show Markdown make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    lost = []
    for link in re.findall(r"\]\(([^):]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            lost.append(link)
    assert lost == []


def test_every_page_is_in_the_table_of_pages() -> None:
    table = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\(([a-z]+\.md)\)", table)) == pages


def test_pages_that_are_made_from_the_program_are_of_this_one() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    kept = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in made}
    assert kept == made, "run python docs/generate.py"


def test_alerts_and_what_to_do_at_them_agree() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8")
    told = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    alerts = re.findall(r"alert: (\w+)", rules)
    assert re.findall(r"^\| `(Task2Vec\w+)` \|", told, re.MULTILINE) == alerts


def test_events_that_operators_are_sent_to_are_logged() -> None:
    told = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py"))
    events = set(re.findall(r"`((?:worker|job|request|store|disk|blobs|index)\.\w+)`", told))
    assert {event for event in events if f'"{event}"' not in code} == set()
    assert events


@pytest.mark.parametrize("target", ["demo", "serve", "test", "check", "bench"])
def test_every_make_target_that_readers_need_exists_and_is_named(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    readers = (ROOT / "README.md").read_text(encoding="utf-8")
    readers += (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"make {target}" in readers
