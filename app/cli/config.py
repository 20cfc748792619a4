"""What is set, to what, and by whom."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import Any

from sqlalchemy.engine import make_url

from app import terminal
from app.cli.options import LOCAL_SERVER, AsJson, DataDir, Host, Port, WorkerDevice
from app.cli.origins import origins, variable
from app.cli.root import app
from app.cli.shared import print_json, settings_of
from app.settings import Settings

NO_SETTINGS = {"TASK2VEC_CONFIG", "TASK2VEC_DEBUG", "TASK2VEC_KEY", "TASK2VEC_SERVER"}


@app.command()
def config(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    device: WorkerDevice = None,
    as_json: AsJson = False,
) -> None:
    """Show every setting, and whether an option, the environment or a file says it."""
    asked = {"host": host, "port": port, "data_dir": data_dir, "device": device}
    asked = {name: value for name, value in asked.items() if value is not None}
    settings = settings_of(**asked)
    said = origins(asked)
    items = [
        {
            "name": name,
            "variable": variable(name),
            "value": value,
            "origin": said[name].kind if name in said else "default",
            "where": said[name].where if name in said else None,
        }
        for name, value in _shown(settings).items()
    ]
    if as_json:
        print_json({"items": items, "unknown": _unknown()})
        return
    terminal.out.print(terminal.config_table(items))
    named = os.environ.get("TASK2VEC_SERVER")
    by = "TASK2VEC_SERVER" if named else "the default of --server"
    terminal.out.print(terminal.plain(f"Commands ask {named or LOCAL_SERVER}, by {by}."))
    for name in _unknown():
        near = get_close_matches(name, [item["variable"] for item in items], n=1)
        told = f"{name} is no setting{f'; there is {near[0]}' if near else ''}."
        terminal.err.print(terminal.plain(told), style="yellow", soft_wrap=True)


def _shown(settings: Settings) -> dict[str, Any]:
    """Without passwords; a store that nothing is said of is shown where it lies."""
    return settings.model_dump(mode="json") | {
        "database_url": _without_passwords(settings.store_url),
        "jobs_url": _without_passwords(settings.engine_url),
        "blob_url": settings.blobs_at,
    }


def _without_passwords(url: str) -> str:
    parts = make_url(url)
    secret = [name for name in parts.query if "password" in name]
    return parts.update_query_dict(dict.fromkeys(secret, "...")).render_as_string()


def _unknown() -> list[str]:
    """Variables that look like settings, which a wrong letter would leave without effect."""
    known = NO_SETTINGS | {variable(name) for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.startswith("TASK2VEC_") and name not in known)
