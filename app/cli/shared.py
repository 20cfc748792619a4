"""What several commands do: print JSON, read settings, open the database, write in its audit log,
ask for extras."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.cli.origins import Origin, origins, variable
from app.errors import InvalidRequest, NotFound, Unavailable
from app.settings import Settings, shared_directory

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from sqlalchemy.orm import Session

    from app.store.session import Database

# What each extra of pyproject.toml brings, by the names it is imported under.
EXTRAS = {
    "worker": ("torch", "torchvision", "timm", "dbos"),
    "demo": ("sklearn",),
    "reference": ("sklearn",),
    "bench": ("matplotlib", "resvg_py"),
}


def print_json(value: Any, indent: int | None = 2) -> None:
    typer.echo(json.dumps(value, indent=indent, ensure_ascii=False))


def settings_of(**asked: Any) -> Settings:
    """The settings of environment and file, with what the command line says instead."""
    said = {name: value for name, value in asked.items() if value is not None}
    try:
        return Settings(**said)
    except SettingsError as error:
        raise InvalidRequest(
            "setting-invalid", f"{error}.", "docs/reference.md describes the file of settings."
        ) from error
    except ValidationError as error:
        raise InvalidRequest(
            "setting-invalid",
            " ".join(_wrong(fault, origins(said)) for fault in error.errors()),
            "docs/reference.md lists the settings.",
        ) from error


def _wrong(fault: ErrorDetails, said: Mapping[str, Origin]) -> str:
    name = str(fault["loc"][0])
    where = said[name].where if name in said else variable(name)
    if name in said and said[name].kind == "file":
        where = f"{name} in {where}"
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(name, Settings.model_fields, n=1)
        return f"{where}: no such setting{f', but there is {near[0]}' if near else ''}."
    return f"{where}: {fault['msg'].removeprefix('Value error, ')}."


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
def open_database(settings: Settings, *, new: bool = False) -> Iterator[Database]:
    """Raises NotFound where there is none; `new`: it is made then."""
    from app.store.session import Database

    path = settings.store_path
    if not (new or path is None or path.exists()):
        raise NotFound(
            "no-data",
            f"No service has its data in {settings.data_dir.absolute()}.",
            "Name with --data-dir the directory of one, or begin one with `task2vec serve`.",
        )
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
