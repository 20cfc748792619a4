"""Settings: who says what they are, what wins, and what is told of one that does not fit."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from app.settings import Settings, shared_directory
from tests.test_cli import Answer, assert_error, task2vec


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TASK2VEC_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "task2vec.toml"


def told(answer: Answer) -> dict[str, tuple[object, str, object]]:
    items = answer.json["items"]
    return {item["name"]: (item["value"], item["origin"], item["where"]) for item in items}


def test_every_setting_is_told_with_who_says_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('port = 9001\nseed = 1\nsource_prefixes = ["s3://sets/"]\ntolerance = "null"\n')
    monkeypatch.setenv("TASK2VEC_SEED", "2")
    monkeypatch.setenv("TASK2VEC_HOST", "::1")
    shown = told(task2vec("config", "--json", "--data-dir", tmp_path, "--host", "localhost"))
    assert list(shown) == list(Settings.model_fields)
    assert shown["host"] == ("localhost", "option", "--host")
    assert shown["data_dir"] == (str(tmp_path), "option", "--data-dir")
    assert shown["seed"] == (2, "environment", "TASK2VEC_SEED")
    assert shown["port"] == (9001, "file", str(file))
    assert shown["source_prefixes"] == (["s3://sets/"], "file", str(file))
    assert shown["tolerance"] == (None, "file", str(file))
    assert shown["draws"] == (16, "default", None)
    assert shown["database_url"] == (f"sqlite:///{tmp_path}/task2vec.sqlite", "default", None)


def test_the_file_of_the_reference_is_one(file: Path, tmp_path: Path) -> None:
    reference = (shared_directory("models").parent / "docs" / "reference.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", reference, re.DOTALL)
    file.write_text(block)
    shown = told(task2vec("config", "--json", "--data-dir", tmp_path))
    said = {name: value for name, (value, origin, _) in shown.items() if origin == "file"}
    assert said == tomllib.loads(block) | {"tolerance": None}


def test_a_file_elsewhere_may_say_where_the_data_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere.toml"
    data.mkdir()
    (data / "task2vec.toml").write_text("seed = 1")
    elsewhere.write_text(f"data_dir = '{data}'\ndraws = 3")
    monkeypatch.setenv("TASK2VEC_CONFIG", str(elsewhere))
    shown = told(task2vec("config", "--json"))
    assert shown["data_dir"] == (str(data), "file", str(elsewhere))
    assert shown["seed"] == (0, "default", None)  # one file, not two
    assert task2vec("keys", "create", "me", "--json").exit_code == 0
    assert (data / "task2vec.sqlite").exists()


def test_passwords_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://me:hushhush@host/name?password=hushhush&sslmode=require"
    monkeypatch.setenv("TASK2VEC_DATABASE_URL", url)
    monkeypatch.setenv("TASK2VEC_JOBS_URL", url)
    for options in ((), ("--json",)):
        answer = task2vec("config", *options)
        assert "hushhush" not in answer.stdout + answer.stderr
    shown = told(answer)
    assert shown["database_url"][0] == (
        "postgresql+psycopg://me:***@host/name?password=...&sslmode=require"
    )
    monkeypatch.setenv("TASK2VEC_JOBS_URL", "mysql://me:hushhush@host/name")
    answer = task2vec("config")
    assert_error(answer, 1, "TASK2VEC_JOBS_URL", "sqlite or postgresql")
    assert "hushhush" not in answer.stderr


def test_a_variable_with_a_wrong_letter_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK2VEC_PROT", "9001")
    monkeypatch.setenv("TASK2VEC_SERVER", "http://127.0.0.1:1")
    assert task2vec("config", "--json").json["unknown"] == ["TASK2VEC_PROT"]
    assert "there is TASK2VEC_PORT" in task2vec("config").stderr


@pytest.mark.parametrize(
    ("written", "fragments"),
    [
        ("prot = 9001", ("prot in ", "no such setting", "there is port")),
        ("zzz = 1", ("zzz in ", "no such setting.")),
        ("port = 70000", ("port in ", "65535")),
        ("port = 'http'\ndraws = 99", ("port in ", "integer", "draws in ", "16")),
        ("auth = 'never'", ("auth in ", "'auto' or 'required'")),
        ("source_prefixes = 'https://host/'", ("source_prefixes in ", "JSON list")),
        ("[server]\nport = 1", ("server in ", "no such setting")),
        ("port 9001", ("is not TOML", "line 1")),
        ("data_dir = 'elsewhere'", ("data_dir in ", "looked for")),
    ],
)
def test_a_wrong_file_is_one_line_that_names_what_is_wrong(
    file: Path, tmp_path: Path, written: str, fragments: tuple[str, ...]
) -> None:
    file.write_text(written)
    answer = task2vec("config", "--data-dir", tmp_path)
    assert_error(answer, 1, str(file), "docs/reference.md", *fragments)


def test_the_variable_that_wins_is_the_one_that_is_named(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("draws = 3")
    monkeypatch.setenv("TASK2VEC_DRAWS", "many")
    answer = task2vec("keys", "list", "--data-dir", tmp_path)
    assert_error(answer, 1, "TASK2VEC_DRAWS: Input should be a valid integer")
    assert str(file) not in answer.stderr


def test_a_named_file_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASK2VEC_CONFIG", str(tmp_path / "absent.toml"))
    assert_error(task2vec("config"), 1, "TASK2VEC_CONFIG", "absent.toml")
