"""Who says what a setting is: the command line, the environment, a file."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic_settings import EnvSettingsSource

from app.settings import Settings, SettingsFile


class Origin(NamedTuple):
    kind: Literal["option", "environment", "file"]
    where: str


def variable(name: str) -> str:
    return f"TASK2VEC_{name.upper()}"


def origins(asked: dict[str, Any]) -> dict[str, Origin]:
    """Of every setting that is said anywhere; of one that is said twice, what wins."""
    environment = EnvSettingsSource(Settings)()
    file = SettingsFile(Settings, environment | asked)
    return (
        {name: Origin("file", str(file.path)) for name in file()}
        | {name: Origin("environment", variable(name)) for name in environment}
        | {name: Origin("option", f"--{name.replace('_', '-')}") for name in asked}
    )
