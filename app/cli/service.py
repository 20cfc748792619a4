"""The service itself: the API, a worker on its own."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import Annotated, NoReturn

import typer

from app import terminal, tracing
from app.cli.options import AsJson, DataDir, Host, Port, WorkerDevice
from app.cli.root import OK, app
from app.cli.shared import open_database, print_json, require_extras, settings_of
from app.errors import Conflict, Unavailable
from app.settings import Settings


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    device: WorkerDevice = None,
    worker: Annotated[
        bool, typer.Option(help="Keep a worker beside the API, as a supervised child process.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Run the service until it is told to stop (Ctrl-C, SIGTERM)."""
    if worker:
        require_extras("worker")
    settings = settings_of(host=host, port=port, data_dir=data_dir, device=device)
    _require_keys(settings)
    with _listening_socket(settings.host, settings.port) as listener:
        if worker:
            _wait_for_predecessor(settings)

        # Now, since these take seconds, and what is above may end in an error.
        from app.api.jobs import stop_streams
        from app.api.main import create_app
        from app.jobs.supervisor import WorkerSupervisor
        from app.server import Server, share_arenas
        from app.telemetry import configure_logging

        share_arenas()
        configure_logging()
        tracing.configure("api")
        _log_like("task2vec", "uvicorn")
        url = _url(settings.host, listener.getsockname()[1])

        def announce() -> None:
            if as_json:
                facts = {"url": url, "data_dir": str(settings.data_dir.absolute())}
                print_json(facts, indent=None)
            else:
                typer.echo(
                    f"Task2Vec listens on {url} (data in {settings.data_dir}, docs at {url}/docs)"
                )
            sys.stdout.flush()

        service = create_app(settings)
        server = Server(
            service,
            grace_seconds=settings.shutdown_grace_seconds,
            on_started=announce,
            on_stopping=partial(stop_streams, service),
        )
        # uvicorn raises the signal that stopped it once more when it is done: the worker is still
        # to be stopped then, so that second one must end this process in order, not at once.
        for stop_signal in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop_signal, _leave)
        supervisor = WorkerSupervisor(settings) if worker else None
        if supervisor is not None:
            supervisor.start()
        try:
            with suppress(SystemExit):  # uvicorn's own exit code for a failed start is taken here
                server.run(sockets=[listener])
        finally:
            if supervisor is not None:
                supervisor.stop()
            tracing.stop()
        if not server.started:
            raise Unavailable(
                "service-not-started", "The service did not start.", "Its log says why, just above."
            )


@app.command()
def worker(
    device: WorkerDevice = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run a worker on its own, beside a `serve --no-worker` with the same settings."""
    require_extras("worker")
    settings = settings_of(device=device, data_dir=data_dir)

    from app.jobs.worker import run_worker
    from app.telemetry import configure_logging

    configure_logging()
    tracing.configure("worker")
    if as_json:
        print_json(
            {"device": settings.device, "data_dir": str(settings.data_dir.absolute())}, indent=None
        )
        sys.stdout.flush()
    run_worker(settings, settings.device, parent_pipe=False)


def _require_keys(settings: Settings) -> None:
    if not settings.keys_required or settings.oidc_issuer:
        return

    from app.store import keys

    with open_database(settings, new=True) as database, database.session(read_only=True) as session:
        usable = keys.any_valid(session)
    if not usable:
        raise Conflict(
            "keys-required",
            f"Listening on {settings.host} asks for API keys, and there are none.",
            "Make one with `task2vec keys create NAME`, name a provider of tokens "
            "(TASK2VEC_OIDC_ISSUER), or listen on 127.0.0.1.",
        )


def _wait_for_predecessor(settings: Settings) -> None:
    from app.jobs import lock

    def tell() -> None:
        terminal.err.print(
            terminal.plain(
                f"Another worker holds {settings.data_dir}; if it is about to end, this service "
                f"begins then, within {lock.PATIENCE_SECONDS:.0f} s."
            ),
            style="yellow",
            soft_wrap=True,
        )

    lock.wait_for_predecessor(settings.data_dir, tell)


def _leave(_signal: int, _frame: object) -> NoReturn:
    sys.exit(OK)


def _log_like(ours: str, theirs: str) -> None:
    """Another library's warnings and errors, in our format."""
    logger = logging.getLogger(theirs)
    logger.handlers[:] = logging.getLogger(ours).handlers
    logger.propagate = False


def _listening_socket(host: str, port: int) -> socket.socket:
    from app.server import listening

    try:
        return listening(host, port)
    except OSError as error:
        raise Unavailable(
            "cannot-listen",
            f"Cannot listen on {host} port {port}: {_why(error)}.",
            "Choose another with --host and --port.",
        ) from error


def _why(error: OSError) -> str:
    """Without what Python adds of the address, which is told already."""
    return (error.strerror or type(error).__name__).partition(" (while")[0]


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
