"""Backups of a service, made while it runs, and put back into an empty one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import terminal
from app.cli.options import (
    AsJson,
    DataDir,
)
from app.cli.root import FAILED, app
from app.cli.shared import open_database, print_json, settings_of, write_down
from app.errors import InvalidRequest
from app.settings import Settings, shared_directory

if TYPE_CHECKING:
    from app.store.backups import Backups, Manifest


@app.command()
def backup(
    dest: Annotated[
        str, typer.Argument(metavar="DEST", help="A local directory, or s3://BUCKET/PREFIX.")
    ],
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Delete all but so many of the newest, and what only they need."),
    ] = None,
    only_list: Annotated[
        bool, typer.Option("--list", help="Only show the backups there are.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Back up database, images and models, also while the service runs; 1 if something was lost."""
    from app.store.backups import Backups

    if only_list:
        with terminal.phases() as tell:
            tell("reading the list of backups", 0, 0)
            items = [_facts(*each) for each in Backups(dest).listed()]
        if as_json:
            print_json({"items": items})
        else:
            terminal.out.print(terminal.backups_table(items))
        return
    settings = settings_of(data_dir=data_dir)
    _require_apart(dest, settings)
    answer = _make(settings, Backups(dest, create=True), keep)
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.backup_made(answer))
    if answer["missing"]:
        raise typer.Exit(FAILED)


@app.command()
def restore(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Where `task2vec backup` put backups.")
    ],
    backup_id: Annotated[
        str | None,
        typer.Option("--backup", metavar="ID", help="Which one; left out, the newest."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only read all of it and say whether it is whole.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup into an empty data directory, or an empty database and bucket."""
    from app.store import restore as store
    from app.store.backups import Backups
    from app.store.blobs import open_blobs

    backups = Backups(source)
    with terminal.phases() as tell:
        tell("reading the list of backups", 0, 0)
        found_id, manifest = backups.find(backup_id)
        if verify:
            store.verify(backups, manifest, tell)
        else:
            settings = settings_of(data_dir=data_dir)
            with open_database(settings, new=True) as database:
                system = store.System(
                    database,
                    open_blobs(settings.blobs_at),
                    settings.index_dir,
                    shared_directory("migrations"),
                )
                store.restore(backups, manifest, system, tell)
                with database.session() as session:
                    write_down(session, "restore", found_id)
    answer = {**_facts(found_id, manifest), "restored": not verify}
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.backup_restored(answer))


def _make(settings: Settings, backups: Backups, keep: int | None) -> dict[str, Any]:
    from app.store.backups import make
    from app.store.blobs import open_blobs

    migrations_dir = shared_directory("migrations")
    with terminal.phases() as tell:
        tell("opening the database", 0, 0)
        with open_database(settings) as database:
            blobs = open_blobs(settings.blobs_at)
            backup_id, manifest = make(database, blobs, migrations_dir, backups, tell)
        forgotten = backups.keep(keep, partial(tell, "deleting parts")) if keep else 0
    return {**_facts(backup_id, manifest), "forgotten": forgotten}


def _facts(backup_id: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "id": backup_id,
        "made_at": manifest.made_at.isoformat(timespec="seconds"),
        "app_version": manifest.app_version,
        "schema_revision": manifest.schema_revision,
        "tasks": manifest.tasks,
        "blobs": len(manifest.blobs),
        "missing": manifest.missing,
    }


def _require_apart(dest: str, settings: Settings) -> None:
    """Within the service's own store, housekeeping would look at a backup's parts as lost ones."""
    url = dest if "://" in dest else Path(dest).absolute().as_uri()
    own = settings.blobs_at.rstrip("/")
    if f"{url}/".startswith(f"{own}/") or f"{own}/".startswith(f"{url}/parts/"):
        raise InvalidRequest(
            "place-invalid",
            f"{dest} lies within the service's own store, {own}.",
            "Name another directory or prefix, best on another disk or in another bucket.",
        )
