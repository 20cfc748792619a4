"""The reference library, and the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app import terminal
from app.cli.options import AsJson, card_names
from app.cli.root import app, reference_app
from app.cli.shared import print_json, require_extras, settings_of


@reference_app.command("build")
def build_reference(
    probe: Annotated[
        str | None,
        typer.Option(
            help="Probe to embed with [TASK2VEC_PROBE].", autocompletion=card_names("probes")
        ),
    ] = None,
    cache_dir: Annotated[
        Path, typer.Option(help="Fetched image sets and finished embeddings.")
    ] = Path(".cache/reference"),
    as_json: AsJson = False,
) -> None:
    """Embed the public image sets anew; takes up where it was interrupted."""
    require_extras("worker", "reference")
    settings = settings_of(probe=probe)

    from app.catalogue import ProbeCard, get_card
    from app.reference.build import build_library

    card = get_card(settings.models_dir, ProbeCard, settings.probe)
    with terminal.progress_bars() as bars:
        bar = bars.add_task(card.name, phase="fetching the image sets", total=None)
        written = build_library(
            card,
            models_dir=settings.models_dir,
            cache_dir=cache_dir,
            on_progress=lambda name, done, total: bars.update(
                bar, phase=name, completed=done, total=total
            ),
        )
    if as_json:
        print_json({"library": str(written)})
    else:
        typer.echo(f"wrote {written}")


@app.command()
def demo(
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the data here; a temporary folder if left out.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Also draw the output as a picture.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the main job on four real image sets, with a service of its own."""
    require_extras("worker", "demo")

    from app.demo import run_demo

    result = run_demo(data_dir, terminal.err if as_json else terminal.out, record)
    if as_json:
        print_json(result)
