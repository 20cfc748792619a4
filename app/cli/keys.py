"""API keys of the service whose data directory this is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import terminal
from app.cli.options import AsJson, DataDir
from app.cli.root import keys_app
from app.cli.shared import open_database, print_json, settings_of, write_down
from app.errors import InvalidRequest
from app.scopes import Scope
from app.settings import Settings

if TYPE_CHECKING:
    from app.store.tables import ApiKey

_HOURS = {"h": 1, "d": 24, "w": 24 * 7}

KeyId = Annotated[
    str, typer.Argument(metavar="ID", help="Id in `task2vec keys list`, or how it begins.")
]
ExpiresIn = Annotated[
    str | None,
    typer.Option(metavar="90d|DATE", help="When it ends: in 12h, 90d, 4w, or on a date (UTC)."),
]


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    tenant: Annotated[
        str, typer.Option(help="Whose tasks it opens; `local` are those made without a key.")
    ] = "local",
    scope: Annotated[
        Scope, typer.Option(help="What it may do: write also reads, admin also manages keys.")
    ] = "write",
    expires_in: ExpiresIn = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. Its secret is shown once and kept nowhere."""
    ends = _moment(expires_in)
    from app.store import keys

    settings = settings_of(data_dir=data_dir)
    with open_database(settings, new=True) as database, database.session() as session:
        secret = keys.create_key(session, tenant, name, scope=scope, expires_at=ends)
        key = keys.find(session, secret)
        write_down(session, "keys create", key.id, key.tenant)
    _tell(key, secret, settings, as_json=as_json)


@keys_app.command("list")
def list_keys(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the API keys, without their secrets."""
    from app.store import keys

    with open_database(settings_of(data_dir=data_dir)) as database, database.session() as session:
        found = [_facts(key) for key in keys.list_keys(session)]
    if as_json:
        print_json({"items": found})
    else:
        terminal.out.print(terminal.keys_table(found))


@keys_app.command("rotate")
def rotate_key(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option(metavar="24h", help="How long the old secret is valid yet; 0h: not.")
    ] = "24h",
    expires_in: ExpiresIn = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key's successor: the same tenant, name, scope and lifetime, a new id and secret."""
    span, ends = _span(overlap), _moment(expires_in)
    from app.store import keys

    settings = settings_of(data_dir=data_dir)
    with open_database(settings) as database, database.session() as session:
        old = keys.find_key(session, key_id)
        secret = keys.rotate_key(session, old, overlap=span, expires_at=ends)
        key = keys.find(session, secret)
        write_down(session, "keys rotate", key.id, key.tenant)
    _tell(key, secret, settings, as_json=as_json)


@keys_app.command("revoke")
def revoke_key(key_id: KeyId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """End an API key at once."""
    from app.store import keys

    with open_database(settings_of(data_dir=data_dir)) as database, database.session() as session:
        key = keys.find_key(session, key_id)
        keys.revoke_key(key)
        write_down(session, "keys revoke", key.id, key.tenant)
    if as_json:
        print_json({"id": key.id, "revoked": True})


def _tell(key: ApiKey, secret: str, settings: Settings, *, as_json: bool) -> None:
    if as_json:
        print_json({**_facts(key), "secret": secret})
    else:  # the secret alone is the answer, so that a script can keep it
        ends = f", until {key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else ""
        told = (
            f"Key {key.id} of the service in {settings.data_dir.absolute()}: {key.name}, tenant "
            f"{key.tenant}, may {key.scope}{ends}."
        )
        terminal.err.print(terminal.plain(told), soft_wrap=True)
        terminal.err.print("Its secret is shown this once; clients send it as TASK2VEC_KEY:")
        typer.echo(secret)


def _facts(key: ApiKey) -> dict[str, Any]:
    plain = ("id", "name", "tenant", "scope", "prefix", "replaced_by")
    times = ("created_at", "expires_at", "last_used_at", "revoked_at")
    return {
        **{name: getattr(key, name) for name in plain},
        **{name: _written(getattr(key, name)) for name in times},
    }


def _written(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) + _span(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if found is None:
        raise InvalidRequest(
            "time-unreadable",
            f"{text!r} is no time.",
            "Write it as 12h, 90d or 4w; when a key ends, also as a date, 2027-01-31.",
        )
    return timedelta(hours=int(found[1]) * _HOURS[found[2]])
