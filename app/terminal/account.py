"""Who may do what, and who did it."""

from __future__ import annotations

from collections.abc import Iterable

from app.terminal.cells import Id, Row, id_or_name, minute, plain
from app.terminal.layout import Listing


def keys_table(keys: Iterable[Row]) -> Listing:
    return Listing(
        "API keys",
        {
            "id": lambda key: Id(key["id"]),
            "prefix": lambda key: plain(key["prefix"]),
            "name": lambda key: plain(key["name"]),
            "tenant": lambda key: plain(key["tenant"]),
            "scope": lambda key: plain(key["scope"]),
            "created": lambda key: minute(key["created_at"]),
            "last used": lambda key: minute(key["last_used_at"]),
            "expires": lambda key: minute(key["expires_at"]),
            "revoked": lambda key: minute(key["revoked_at"]),
        },
        keys,
        spare=("created", "prefix", "last used", "tenant"),
        empty="There are no keys; `task2vec keys create NAME` makes one.",
    )


def audit_table(events: Iterable[Row]) -> Listing:
    return Listing(
        "Audit log",
        {
            "at": lambda event: minute(event["at"]),
            "tenant": lambda event: plain(event["tenant"]),
            "actor": lambda event: plain(event["actor"]),
            "action": lambda event: plain(event["action"]),
            "object": lambda event: id_or_name(event["object_id"]),
            "address": lambda event: plain(event["address"]),
            "#status": lambda event: plain(event["status"]),
            "problem": lambda event: plain(event["problem"]),
        },
        events,
        spare=("address", "object", "tenant"),
        empty="Nothing was changed or refused.",
    )


def tenants_table(tenants: Iterable[Row]) -> Listing:
    return Listing(
        "Tenants",
        {
            "tenant": lambda each: plain(each["tenant"]),
            "#tasks": lambda each: f"{each['tasks']:,}",
            "#archive bytes": lambda each: f"{each['archive_bytes']:,}",
            "#fine-tunes": lambda each: f"{each['finetunes']:,}",
            "#outcomes": lambda each: f"{each['outcomes']:,}",
        },
        tenants,
        empty="Nobody has anything here.",
    )
