"""For whoever runs the service: tenants, a move to another space, a check."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from app import terminal
from app.cli.options import AsJson, DataDir, card_names
from app.cli.root import app
from app.cli.shared import open_database, print_json, require_extras, settings_of, write_down
from app.errors import InvalidRequest
from app.settings import Settings


@app.command()
def migrate(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Bring the database's tables up to this version, which every process does at its start too."""
    settings = settings_of(data_dir=data_dir)
    with terminal.phases() as tell:
        tell("bringing the tables up to this version", 0, 0)
        with open_database(settings, new=True) as database:
            revision = database.revision()
    if as_json:
        print_json({"revision": revision})
    else:
        typer.echo(f"The database stands at revision {revision}.")


@app.command()
def tenants(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List who has something in the data directory, and how much."""
    from app.store import tenants as store

    settings = settings_of(data_dir=data_dir)
    with terminal.phases() as tell:
        tell("counting what tenants have", 0, 0)
        with open_database(settings) as database, database.session(read_only=True) as session:
            found = store.count(session)
    if as_json:
        print_json({"items": found})
    else:
        terminal.out.print(terminal.tenants_table(found))


@app.command()
def forget(
    tenant: Annotated[str, typer.Argument(help="One of `task2vec tenants`.")],
    confirmed: Annotated[
        bool, typer.Option("--yes", help="It is meant: without this, nothing is done.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Delete everything that a tenant has, its keys too. There is no way back."""
    from app.store import archives
    from app.store import tenants as store
    from app.store.blobs import open_blobs

    settings = settings_of(data_dir=data_dir)
    if not confirmed:
        raise InvalidRequest(
            "not-confirmed",
            f"This deletes everything that {tenant} has, and there is no way back.",
            "If that is meant, say so with --yes.",
        )
    with terminal.phases() as tell:
        tell("deleting rows", 0, 0)
        with open_database(settings) as database:
            with database.session() as session:
                digests = store.forget(session, tenant)
                write_down(session, "forget", tenant)
            with database.session() as session:
                blobs, on_blob = open_blobs(settings.blobs_at), partial(tell, "deleting blobs")
                gone = archives.delete_unneeded(session, blobs, digests, on_blob)
            tell("cutting the database's log", 0, 0)
            database.cut_log()
    if as_json:
        print_json({"tenant": tenant, "blobs": gone})
    else:
        typer.echo(f"Nothing of {tenant} is left in the database; {gone} blobs were deleted.")


@app.command()
def reindex(
    probe: Annotated[
        str | None,
        typer.Option(
            help="Probe of the space to move to [TASK2VEC_PROBE].",
            autocompletion=card_names("probes"),
        ),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only show how far it is.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Move all tasks to another probe's space, from the images kept; a worker does it when idle."""
    settings = settings_of(probe=probe, data_dir=data_dir)
    answer = _show_moves(settings) if status else _begin_move(settings)
    if as_json:
        print_json(answer)
    else:
        terminal.out.print((terminal.moves if status else terminal.move_begun)(answer))


@app.command()
def check(
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte and every number, not a sample.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Set right what loses nothing by it; nothing else may run."),
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Look whether all that is kept fits together; 1 if something does not."""
    answer = _check(settings_of(data_dir=data_dir), deep=deep, repair=repair)
    if as_json:
        print_json(answer)
    else:
        terminal.out.print(terminal.check_report(answer))
    if not answer["ok"]:
        raise typer.Exit(1)


def _begin_move(settings: Settings) -> dict[str, Any]:
    require_extras("worker")

    from app.catalogue import ProbeCard, get_card
    from app.embedding.probe import load_probe
    from app.store import reindex, spaces
    from app.store.blobs import open_blobs

    # Loaded here, though a worker will do the work: the space is not known before, and weights that
    # cannot be had are told now, not by every job.
    with terminal.phases() as tell:
        tell("loading the probe", 0, 0)
        target = load_probe(get_card(settings.models_dir, ProbeCard, settings.probe), "cpu")
        tell("queueing tasks", 0, 0)
        with open_database(settings) as database, database.session() as session:
            blobs = open_blobs(settings.blobs_at)
            begun = reindex.begin(session, blobs, target.card.name, target.space_id)
            write_down(session, "reindex", target.space_id)
            found = spaces.count_tasks(session)
    library_tasks = sum(count.library_tasks for count in found if count.space_id == target.space_id)
    return {
        "probe": target.card.name,
        "probe_digest": target.digest,
        "space_id": target.space_id,
        "library_tasks": library_tasks,
        **asdict(begun),
    }


def _show_moves(settings: Settings) -> dict[str, Any]:
    from app.store import reindex, spaces

    with terminal.phases() as tell:
        tell("counting tasks", 0, 0)
        with open_database(settings) as database, database.session(read_only=True) as session:
            found = [asdict(count) for count in spaces.count_tasks(session)]
            return {"spaces": found, **asdict(reindex.progress(session))}


def _check(settings: Settings, *, deep: bool, repair: bool) -> dict[str, Any]:
    from app.store.blobs import open_blobs
    from app.store.check import check as check_store

    with terminal.phases() as tell:
        tell("opening the database", 0, 0)
        with open_database(settings) as database, database.session(read_only=not repair) as session:
            blobs, how = open_blobs(settings.blobs_at), {"deep": deep, "repair": repair}
            report = check_store(session, blobs, settings, **how, on_progress=tell)
            if repair:
                write_down(session, "check --repair", None)
    left = [finding for finding in report.findings if not finding.mended]
    return {
        "ok": not left,
        "checked": dict(report.checked),
        "findings": [asdict(finding) for finding in report.findings],
    }
