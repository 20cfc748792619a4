"""What was changed and refused by the service whose data directory this is."""

from __future__ import annotations

from typing import Annotated

import typer

from app import terminal
from app.cli.options import AsJson, DataDir
from app.cli.root import app
from app.cli.shared import open_database, print_json, settings_of

_COLUMNS = ("at", "tenant", "actor", "action", "object_id", "address", "status", "problem")


@app.command()
def audit(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only what was refused.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 50,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, and what was refused to whom; newest first."""
    from app.store.audit import list_events

    with (
        open_database(settings_of(data_dir=data_dir)) as database,
        database.session(read_only=True) as session,
    ):
        events, _ = list_events(session, tenant, limit=limit, refused=refused)
        rows = [{name: getattr(event, name) for name in _COLUMNS} for event in events]
    for row in rows:
        row["at"] = row["at"].isoformat(timespec="seconds")
    if as_json:
        print_json({"items": rows})
    else:
        terminal.out.print(terminal.audit_table(rows))
