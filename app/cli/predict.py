"""What the model of a run says of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app import terminal
from app.cli.jobs import follow, require_success
from app.cli.options import LOCAL_SERVER, AsJson, Key, RunId, Server
from app.cli.root import app
from app.cli.shared import print_json
from app.client import Client
from app.files import whole
from app.folder import Archive, archive_bytes


@app.command()
def predict(
    run: RunId,
    path: Annotated[
        Path, typer.Argument(exists=True, readable=True, help="Images: archive, folder or file.")
    ],
    top: Annotated[int, typer.Option("-k", min=1, help="Classes listed of an image.")] = 5,
    threshold: Annotated[
        float,
        typer.Option(min=0, help="Of several labels: list those more probable; below 1."),
    ] = 0.5,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Where the table is put.")
    ] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Classify the images at PATH by the model of RUN; they are not kept."""
    if out is not None and not out.parent.is_dir():
        raise typer.BadParameter(f"There is no folder {out.parent} for --out.")
    if not threshold < 1:
        raise typer.BadParameter("--threshold is below 1: nothing is more probable than that.")
    asked = {"k": top, "threshold": threshold}
    with Client(server, key) as client:
        found = client.find("/v1/finetunes", run)
        accepted = _upload(client, f"/v1/finetunes/{found['id']}/predictions", path, asked)
        try:
            follow(client, accepted["job_id"], str(path))
        except KeyboardInterrupt:
            terminal.err.print(
                f"The job goes on: `task2vec job {accepted['job_id']}`; its answer will be at "
                f"{accepted['links']['self']}."
            )
            raise
        here = accepted["links"]["self"]
        answer = client.get(here, limit=10_000)
        while answer["next_cursor"]:
            more = client.get(here, limit=10_000, cursor=answer["next_cursor"])
            answer["images"] += more["images"]
            answer["refused"] += more["refused"]
            answer["next_cursor"] = more["next_cursor"]
        if out is not None and answer["state"] == "succeeded":
            with whole(out) as part:
                part.write_bytes(client.download(here, format="csv"))
    if as_json:
        print_json(answer)
    elif answer["state"] == "succeeded":
        terminal.out.print(terminal.prediction_report(answer))
        if out is not None:
            terminal.out.print()
            terminal.out.print(terminal.plain(f"The whole table: {out}"), soft_wrap=True)
    require_success(answer["state"], answer["problem"])


def _upload(
    client: Client, to: str, archive: Path | Archive, metadata: dict[str, Any]
) -> dict[str, Any]:
    """Sends an archive, or what is made into one, with a bar."""
    with terminal.upload_bar() as bars:
        bar = bars.add_task("sending", total=archive_bytes(archive))
        return client.upload(
            to, archive, metadata, on_sent=lambda sent: bars.update(bar, completed=sent)
        )
