"""What several commands do: print JSON, write files, read settings, open the database, write in its
audit log, ask for extras."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.errors import InvalidRequest, Unavailable
from app.settings import Settings, shared_directory

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.store.session import Database

# What each extra of pyproject.toml brings, by the names it is imported under.
EXTRAS = {
    "worker": ("torch", "torchvision", "timm", "dbos"),
    "demo": ("sklearn",),
    "reference": ("sklearn",),
    "bench": ("matplotlib",),
}


def print_json(value: Any, indent: int | None = 2) -> None:
    typer.echo(json.dumps(value, indent=indent, ensure_ascii=False))


def settings_of(**asked: Any) -> Settings:
    """The environment's settings, with what the command line says instead."""
    try:
        return Settings(**{name: value for name, value in asked.items() if value is not None})
    except SettingsError as error:  # a list that is not written as JSON, say
        raise InvalidRequest(
            "setting-invalid", f"{error}.", "Lists are written as JSON; see docs/reference.md."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        variable = "TASK2VEC_" + "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidRequest(
            "setting-invalid",
            f"{variable}: {first['msg'].removeprefix('Value error, ')}.",
            "docs/reference.md lists the settings.",
        ) from error


def require_extras(*extras: str) -> None:
    missing = {
        extra: [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
        for extra in extras
    }
    names = [name for found in missing.values() for name in found]
    if names:
        wanted = ",".join(extra for extra, found in missing.items() if found)
        raise Unavailable(
            "extra-missing",
            f"This needs packages that are not installed ({', '.join(names)}).",
            f"Run: pip install 'task2vec-service[{wanted}]'",
        )


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write it: it is there once it is whole, and is what it was before if that fails."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    from app.store.session import Database

    database = Database(settings.store_url)
    try:
        database.migrate(shared_directory("migrations"))
        yield database
    finally:
        database.dispose()


def write_down(
    session: Session, command: str, object_id: str | None, tenant: str | None = None
) -> None:
    """In the audit log, in the commit of what was done; without a tenant it was done to all."""
    from app.store.tables import AuditEvent

    action = f"task2vec {command}"
    session.add(
        AuditEvent(tenant=tenant, actor="shell", action=action, object_id=object_id, status=0)
    )
