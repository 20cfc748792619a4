"""Who may do what, and who did it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from app.terminal.cells import Row, plain
from app.terminal.layout import new_table


def keys_table(keys: Iterable[Row]) -> Table:
    names = (
        *("id", "prefix", "name", "tenant", "scope"),
        *("created_at", "last_used_at", "expires_at", "revoked_at"),
    )
    table = new_table("API keys", *names)
    for key in keys:
        table.add_row(*(plain(key[name]) for name in names))
    return table


def audit_table(events: Iterable[Row]) -> Table:
    names = ("at", "tenant", "actor", "action", "object_id", "address", "status", "problem")
    table = new_table("Audit log", *names)
    for event in events:
        table.add_row(*(plain(event[name]) for name in names))
    return table


def tenants_table(tenants: Iterable[Row]) -> Table:
    names = ("tasks", "archive_bytes", "finetunes", "outcomes")
    table = new_table("Tenants", "tenant", *(f"#{name.replace('_', ' ')}" for name in names))
    for each in tenants:
        table.add_row(plain(each["tenant"]), *(f"{each[name]:,}" for name in names))
    return table
