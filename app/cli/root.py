"""The command `task2vec`: its groups, and how everything that goes wrong ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from app import __version__, terminal
from app.cli.picture import draw_printed, require_printed
from app.client import ServerUnreachable
from app.errors import Task2VecError

OK, FAILED, USAGE, NO_SERVER, INTERRUPTED = 0, 1, 2, 3, 130


# What goes in a header over HTTP, and is an option here.
_REMEDIES = {"key-missing": "Give one by --key or TASK2VEC_KEY; `task2vec keys create` makes one."}


class BareFlags(TyperGroup):
    """In help, no type stands beside a flag: it takes no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _bare(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _bare(command.get_params(ctx))
        return command


def _bare(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


class OneLineErrors(BareFlags):
    """Whatever goes wrong ends in one line on stderr and a documented exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except typer.TyperException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "task2vec"
            told = error.format_message().replace(": Value error, ", ": ")
            fail(f"{_sentence(told)} See `{command} --help`.", error.exit_code)
        except ServerUnreachable as error:
            fail(str(error), NO_SERVER)
        except Task2VecError as error:
            files = (error.problem().get("report") or {}).get("files")
            if files:
                terminal.err.print(terminal.skipped_files(files), "")
            fail(f"{error.detail} {_REMEDIES.get(error.code, error.remedy)}".strip(), FAILED)
        except OSError as error:
            what = error.strerror or type(error).__name__
            fail(f"{error.filename}: {what}." if error.filename else f"{what}.", FAILED)
        except Exception as error:
            if os.environ.get("TASK2VEC_DEBUG"):
                raise
            fail(
                f"unexpected {type(error).__name__}: {error}. "
                "Please report it; TASK2VEC_DEBUG=1 shows where it happened.",
                FAILED,
            )
        if code == INTERRUPTED:
            fail("interrupted.", INTERRUPTED)
        sys.exit(code)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def fail(sentence: str, exit_code: int) -> NoReturn:
    terminal.err.print("error: ", terminal.plain(sentence), sep="", style="red", soft_wrap=True)
    sys.exit(exit_code)


app = typer.Typer(
    name="task2vec",
    cls=OneLineErrors,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which pretrained image model to fine-tune on a small labelled set, and at what cost.",
)
keys_app = typer.Typer(cls=BareFlags, help="API keys of the service whose data directory this is.")
reference_app = typer.Typer(
    cls=BareFlags, help="The reference library that ships with the service."
)
estimator_app = typer.Typer(cls=BareFlags, help="The estimator of accuracy and cost.")
outcomes_app = typer.Typer(cls=BareFlags, help="What fine-tuning runs really gave and took.")
app.add_typer(keys_app, name="keys")
app.add_typer(estimator_app, name="estimator")
app.add_typer(outcomes_app, name="outcomes")
app.add_typer(reference_app, name="reference")


def _draw(code: Any, picture: Path | None, **_: object) -> Any:
    """Once a command is done; one that failed leaves no picture."""
    if picture is not None:
        draw_printed(picture)
    return code


@app.callback(invoke_without_command=True, result_callback=_draw)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Draw what the command prints, too: FILE.svg or .png.",
        ),
    ] = None,
) -> None:
    if picture is not None:
        require_printed(picture)
        if not picture.parent.is_dir():
            raise typer.BadParameter(f"There is no folder {picture.parent} for --picture.")
        terminal.out.record = True
        context.call_on_close(lambda: setattr(terminal.out, "record", False))
    if version:
        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
