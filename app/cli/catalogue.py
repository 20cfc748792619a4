"""Cards: candidates, devices, recipes, probes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer

from app import terminal
from app.cli.options import (
    LOCAL_SERVER,
    AddCard,
    AsJson,
    Key,
    RemoveCard,
    Server,
)
from app.cli.root import app
from app.cli.shared import print_json
from app.client import Client
from app.errors import InvalidRequest
from app.terminal.layout import Listing


@app.command()
def candidates(
    add: AddCard = None,
    remove: RemoveCard = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the models one could fine-tune, add one, or delete one of your own."""
    _cards("candidates", terminal.candidates_table, add, remove, server, key, as_json)


@app.command()
def devices(
    add: AddCard = None,
    remove: RemoveCard = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the machines that estimates are made for, add one, or delete one of your own."""
    _cards("devices", terminal.devices_table, add, remove, server, key, as_json)


@app.command()
def recipes(server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """List the ways of fine-tuning that estimates are made for."""
    _cards("recipes", terminal.recipes_table, None, None, server, key, as_json)


@app.command()
def probes(server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """List the networks that tasks can be looked at through."""
    _cards("probes", terminal.probes_table, None, None, server, key, as_json)


def _cards(
    kind: str,
    table: Callable[[list[dict[str, Any]]], Listing],
    add: Path | None,
    remove: str | None,
    server: str,
    key: str | None,
    as_json: bool,
) -> None:
    with Client(server, key) as client:
        if remove is not None:
            client.delete(f"/v1/{kind}/{quote(remove, safe='')}")
            if not as_json and add is None:
                typer.echo(f"removed {remove}")
                return
        if add is not None:
            try:
                card = tomllib.loads(add.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise InvalidRequest(
                    "card-invalid", f"{add} is not TOML: {error}.", "Mend the file."
                ) from error
            cards = [client.post(f"/v1/{kind}", card)]
        else:
            cards = client.get(f"/v1/{kind}")["items"]
    if as_json:
        print_json({"items": cards})
    else:
        terminal.out.print(table(cards))
