"""The command line: what `task2vec` does, one function a command.

Answers go to stdout (`--json`: exactly what a program reads, nothing else), progress and errors to
stderr, an error always as the one line `error: what. remedy`.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import logging
import os
import signal
import socket
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn
from urllib.parse import quote

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.table import Table
from typer.core import TyperGroup

from app import __version__, terminal
from app.client import Client, ServerUnreachable
from app.embedding.metric_names import MetricName
from app.errors import Conflict, InvalidRequest, Task2VecError, Unavailable
from app.folder import archive_name
from app.settings import Settings, shared_directory

if TYPE_CHECKING:
    from app.embedding.vector import TaskEmbedding
    from app.store.session import Database

LabelKind = Literal["auto", "single_label", "multi_label"]

OK, FAILED, USAGE, NO_SERVER, INTERRUPTED = 0, 1, 2, 3, 130

# What each extra of pyproject.toml brings, by the names it is imported under.
EXTRAS = {
    "worker": ("torch", "torchvision", "timm", "dbos"),
    "demo": ("sklearn",),
    "reference": ("sklearn",),
}


class OneLineErrors(TyperGroup):
    """Whatever goes wrong ends in one line on stderr and a documented exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except typer.TyperException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "task2vec"
            _fail(f"{error.format_message()} See `{command} --help`.", error.exit_code)
        except ServerUnreachable as error:
            _fail(str(error), NO_SERVER)
        except Task2VecError as error:
            _fail(str(error), FAILED)
        except OSError as error:
            what = error.strerror or type(error).__name__
            _fail(f"{error.filename}: {what}." if error.filename else f"{what}.", FAILED)
        except Exception as error:
            if os.environ.get("TASK2VEC_DEBUG"):
                raise
            _fail(
                f"unexpected {type(error).__name__}: {error}. "
                "Please report it; TASK2VEC_DEBUG=1 shows where it happened.",
                FAILED,
            )
        if code == INTERRUPTED:
            _fail("interrupted.", INTERRUPTED)
        sys.exit(code)


app = typer.Typer(
    name="task2vec",
    cls=OneLineErrors,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which pretrained image model to fine-tune on a small labelled set, and at what cost.",
)
keys_app = typer.Typer(help="API keys of the service whose data directory this is.")
reference_app = typer.Typer(help="The reference library that ships with the service.")
estimator_app = typer.Typer(help="The estimator of accuracy and cost.")
app.add_typer(keys_app, name="keys")
outcomes_app = typer.Typer(help="What fine-tuning runs really gave and took.")
app.add_typer(estimator_app, name="estimator")
app.add_typer(outcomes_app, name="outcomes")
app.add_typer(reference_app, name="reference")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Server = Annotated[
    str, typer.Option(envvar="TASK2VEC_SERVER", help="Address of the service, http://HOST:PORT.")
]
Key = Annotated[
    str | None,
    typer.Option(envvar="TASK2VEC_KEY", show_envvar=True, help="API key, where one is asked for."),
]
TaskRef = Annotated[str, typer.Argument(metavar="TASK", help="Id, or a name that only one has.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Where the service keeps its data [TASK2VEC_DATA_DIR].")
]
Metric = Annotated[
    MetricName | None, typer.Option(help="Which distance; left out, the default of the space.")
]
LOCAL_SERVER = "http://127.0.0.1:8000"


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


# --- the service


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [TASK2VEC_HOST].")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0: any free one [TASK2VEC_PORT].")
    ] = None,
    data_dir: DataDir = None,
    device: Annotated[
        str | None, typer.Option(help="Where the worker computes [TASK2VEC_DEVICE].")
    ] = None,
    worker: Annotated[
        bool, typer.Option(help="Keep a worker beside the API, as a supervised child process.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Run the service until it is told to stop (Ctrl-C, SIGTERM)."""
    if worker:
        _require_extras("worker")
    settings = _settings(host=host, port=port, data_dir=data_dir, device=device)
    _require_keys(settings)

    from app.api.main import create_app
    from app.jobs.supervisor import WorkerSupervisor
    from app.server import Server
    from app.telemetry import configure_logging

    configure_logging()
    _log_like("task2vec", "uvicorn")
    with _listening_socket(settings.host, settings.port) as listener:
        url = _url(settings.host, listener.getsockname()[1])

        def announce() -> None:
            if as_json:
                facts = {"url": url, "data_dir": str(settings.data_dir.absolute())}
                _print_json(facts, indent=None)
            else:
                typer.echo(
                    f"Task2Vec listens on {url} (data in {settings.data_dir}, docs at {url}/docs)"
                )
            sys.stdout.flush()

        server = Server(
            create_app(settings),
            grace_seconds=settings.shutdown_grace_seconds,
            on_started=announce,
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
        if not server.started:
            raise Unavailable(
                "service-not-started", "The service did not start.", "Its log says why, just above."
            )


@app.command()
def worker(
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps [TASK2VEC_DEVICE].")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run a worker on its own, beside a `serve --no-worker` with the same settings."""
    _require_extras("worker")
    settings = _settings(device=device, data_dir=data_dir)

    from app.jobs.worker import run_worker
    from app.telemetry import configure_logging

    configure_logging()
    if as_json:
        _print_json(
            {"device": settings.device, "data_dir": str(settings.data_dir.absolute())}, indent=None
        )
        sys.stdout.flush()
    run_worker(settings, settings.device, parent_pipe=False)


# --- tasks


@app.command()
def embed(
    path: Annotated[
        Path, typer.Argument(exists=True, readable=True, help="An archive, or a folder of images.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the task; the file's if left out.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    label_kind: Annotated[
        LabelKind, typer.Option(help="What a label is; auto looks at the labels.")
    ] = "auto",
    probe: Annotated[str | None, typer.Option(help="Probe to look through.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the embedding is there.")] = True,
    local: Annotated[
        bool, typer.Option("--local", help="Compute here, without a service.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Where --local writes.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where --local computes.")] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Embed a labelled image set: PATH is an archive, or a folder with one folder per label."""
    if local:
        if out is None:
            raise typer.BadParameter("--local needs --out FILE.npz.")
        if not out.parent.is_dir():
            raise typer.BadParameter(f"There is no folder {out.parent} for --out.")
        _embed_here(path, out, label_kind, _settings(probe=probe, device=device), as_json)
        return
    if out is not None or device is not None:
        raise typer.BadParameter("--out and --device go with --local only.")
    metadata = {"name": name, "tags": tag or [], "label_kind": label_kind, "probe": probe}
    with Client(server, key) as client:
        accepted = _upload(client, path, {k: v for k, v in metadata.items() if v is not None})
        if wait:
            try:
                _follow(client, accepted["job_id"], name or archive_name(path))
            except KeyboardInterrupt:
                terminal.err.print(f"The job goes on: `task2vec job {accepted['job_id']}`.")
                raise
        task = client.get(f"/v1/tasks/{accepted['id']}")
    if as_json:
        _print_json(task if wait else accepted)
    elif wait:
        terminal.out.print(terminal.task_facts(task))
    else:
        typer.echo(f"task {accepted['id']}\njob  {accepted['job_id']}")
    if wait:
        _require_success(task["status"], task["problem"])


@app.command()
def tasks(
    status: Annotated[str | None, typer.Option(help="Only tasks in this state.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only tasks with this tag.")] = None,
    name: Annotated[str | None, typer.Option(help="Only names that contain this.")] = None,
    library: Annotated[
        bool, typer.Option("--library", help="The reference library's instead of yours.")
    ] = False,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks, newest first."""
    asked = {"status": status, "tag": tag, "q": name, "library": library or None}
    with Client(server, key) as client:
        found = list(client.pages("/v1/tasks", limit=200, **asked))
    if as_json:
        _print_json({"items": found})
    else:
        terminal.out.print(terminal.tasks_table(found))


@app.command()
def neighbours(
    task: TaskRef,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many.")] = 10,
    metric: Metric = None,
    tag: Annotated[str | None, typer.Option(help="Only tasks with this tag.")] = None,
    label_kind: Annotated[
        str | None, typer.Option(help="Only single_label or multi_label tasks.")
    ] = None,
    min_classes: Annotated[int | None, typer.Option(min=2, help="Of so many classes.")] = None,
    max_classes: Annotated[int | None, typer.Option(min=2, help="Of no more classes.")] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Rank the tasks nearest to TASK by exact distance."""
    filters = {
        "tag": tag,
        "label_kind": label_kind,
        "min_classes": min_classes,
        "max_classes": max_classes,
    }
    with Client(server, key) as client:
        found = client.find_task(task)
        answer = client.get(f"/v1/tasks/{found['id']}/neighbours", k=k, metric=metric, **filters)
    if as_json:
        _print_json(answer)
    else:
        terminal.out.print(terminal.neighbours_table(answer, f"Nearest to {found['name']}"))


@app.command()
def atlas(
    space: Annotated[str | None, typer.Option(help="Space, where there are several.")] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show the clusters on the map of tasks, and which of them join."""
    with Client(server, key) as client:
        answer = client.get("/v1/atlas", limit=10_000 if as_json else 1, space_id=space)
        while as_json and answer["next_cursor"]:
            more = client.get(
                "/v1/atlas", limit=10_000, space_id=space, cursor=answer["next_cursor"]
            )
            answer["items"] += more["items"]
            answer["next_cursor"] = more["next_cursor"]
    if as_json:
        _print_json(answer)
    else:
        terminal.out.print(terminal.atlas_report(answer))


@app.command()
def distance(
    items: Annotated[
        list[str],
        typer.Argument(metavar="A B ...", help="Tasks, or .npz files of `embed --local`."),
    ],
    metric: Metric = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Print the matrix of distances: row is the source, column the target, in the order given."""
    if len(items) < 2:
        raise typer.BadParameter("Name at least two tasks or .npz files.")

    from app.local import compare_here

    if any(item.endswith(".npz") for item in items):
        embeddings = [_load_embedding(item, server, key) for item in items]
        answer = compare_here(embeddings, metric, _settings().models_dir)
    else:
        with Client(server, key) as client:
            ids = [client.find_task(item)["id"] for item in items]
            answer = client.post("/v1/distances", {"tasks": ids, "metric": metric})
    if as_json:
        _print_json(answer | {"items": items})
    else:
        names = [Path(item).name for item in items]
        terminal.out.print(terminal.distances_table(names, answer))


@app.command()
def estimate(
    task: TaskRef,
    device: Annotated[str | None, typer.Option(help="A device of `task2vec devices`.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe of `task2vec recipes`.")] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, max=1000, help="How many.")] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="USD: leave out what may cost more, at its interval's upper end."),
    ] = None,
    budget_seconds: Annotated[
        float | None, typer.Option(min=0, help="Leave out what may take longer, likewise.")
    ] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Rank candidate models for fine-tuning on TASK, with time, money, energy and memory."""
    with Client(server, key) as client:
        found = client.find_task(task)
        answer = client.get(
            f"/v1/tasks/{found['id']}/estimates",
            device=device,
            recipe=recipe,
            k=k,
            budget_usd=budget,
            budget_seconds=budget_seconds,
        )
    if as_json:
        _print_json(answer)
    else:
        terminal.out.print(terminal.estimates_table(answer, f"Candidates for {found['name']}"))


@app.command()
def plan(
    task: TaskRef,
    target: Annotated[
        float | None, typer.Option(min=0, max=1, help="Accuracy to reach, a share.")
    ] = None,
    tries: Annotated[int, typer.Option(min=1, max=20, help="At most so many candidates.")] = 3,
    device: Annotated[str | None, typer.Option(help="A device of `task2vec devices`.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe of `task2vec recipes`.")] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="USD that all tries together surely stay below.")
    ] = None,
    budget_seconds: Annotated[float | None, typer.Option(min=0, help="Likewise of time.")] = None,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Which candidates to try on TASK, in which order, and what may come of it."""
    with Client(server, key) as client:
        found = client.find_task(task)
        answer = client.get(
            f"/v1/tasks/{found['id']}/plan",
            target=target,
            tries=tries,
            device=device,
            recipe=recipe,
            budget_usd=budget,
            budget_seconds=budget_seconds,
        )
    if as_json:
        _print_json(answer)
    else:
        terminal.out.print(terminal.plan_report(answer, found["name"]))


# --- the catalogue

AddCard = Annotated[
    Path | None, typer.Option(metavar="CARD.toml", exists=True, help="Add a card of your own.")
]


@app.command()
def candidates(
    add: AddCard = None, server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False
) -> None:
    """List the models one could fine-tune, or add one."""
    _cards("candidates", terminal.candidates_table, add, server, key, as_json)


@app.command()
def devices(
    add: AddCard = None, server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False
) -> None:
    """List the machines that estimates are made for, or add one."""
    _cards("devices", terminal.devices_table, add, server, key, as_json)


@app.command()
def recipes(server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """List the ways of fine-tuning that estimates are made for."""
    _cards("recipes", terminal.recipes_table, None, server, key, as_json)


@app.command()
def probes(server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """List the networks that tasks can be looked at through."""
    _cards("probes", terminal.probes_table, None, server, key, as_json)


# --- jobs


@app.command()
def job(
    job_id: JobId, server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False
) -> None:
    """Show how far a job has come."""
    with Client(server, key) as client:
        _show_job(client.get(f"/v1/jobs/{quote(job_id, safe='')}"), as_json)


@app.command()
def cancel(
    job_id: JobId, server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False
) -> None:
    """Take a job back; one that is running stops within a batch."""
    with Client(server, key) as client:
        _show_job(client.delete(f"/v1/jobs/{quote(job_id, safe='')}"), as_json)


# --- upkeep


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    tenant: Annotated[
        str, typer.Option(help="Whose tasks it opens; `local` are those made without a key.")
    ] = "local",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. Its secret is shown once and kept nowhere."""
    from app.store import keys

    with _database(_settings(data_dir=data_dir)) as database, database.session() as session:
        secret = keys.create_key(session, tenant, name)
    if as_json:
        _print_json({"name": name, "tenant": tenant, "secret": secret})
    else:
        typer.echo(secret)


@keys_app.command("list")
def list_keys(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the API keys, without their secrets."""
    from app.store import keys

    with _database(_settings(data_dir=data_dir)) as database, database.session() as session:
        found = [
            {
                "id": key.id,
                "name": key.name,
                "tenant": key.tenant,
                "created_at": key.created_at.isoformat(timespec="seconds"),
                "revoked_at": key.revoked_at and key.revoked_at.isoformat(timespec="seconds"),
            }
            for key in keys.list_keys(session)
        ]
    if as_json:
        _print_json({"items": found})
    else:
        terminal.out.print(terminal.keys_table(found))


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id in `task2vec keys list`.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End an API key at once."""
    from app.store import keys

    with _database(_settings(data_dir=data_dir)) as database, database.session() as session:
        keys.revoke_key(session, key_id)
    if as_json:
        _print_json({"id": key_id, "revoked": True})


@app.command()
def reindex(
    probe: Annotated[
        str | None, typer.Option(help="Probe of the space to move to [TASK2VEC_PROBE].")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only show how far it is.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Move all tasks to another probe's space, from the images kept; a worker does it when idle."""
    settings = _settings(probe=probe, data_dir=data_dir)
    answer = _show_moves(settings) if status else _begin_move(settings)
    if as_json:
        _print_json(answer)
    else:
        terminal.out.print((terminal.moves if status else terminal.move_begun)(answer))


@app.command()
def check(
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte and every number, not a sample.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Delete indexes that do not fit; nothing else may run.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Look whether database, archives and search indexes fit together; 1 if something does not."""
    answer = _check(_settings(data_dir=data_dir), deep=deep, repair=repair)
    if as_json:
        _print_json(answer)
    else:
        terminal.out.print(terminal.check_report(answer))
    if not answer["ok"]:
        raise typer.Exit(1)


@outcomes_app.command("import")
def import_outcomes(
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, readable=True, help="CSV, or .parquet."),
    ],
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Add the runs of an outcome table; rows that cannot be are told, the others added once."""
    from app.cost.outcome_table import MEDIA_TYPES, kind_of

    opener = gzip.open if file.suffix == ".gz" else Path.open
    with opener(file, "rb") as stream:
        content = stream.read()
    with Client(server, key) as client:
        answer = client.post_bytes("/v1/outcomes:import", content, MEDIA_TYPES[kind_of(file)])
    if as_json:
        _print_json(answer)
    else:
        terminal.out.print(terminal.import_report(answer))


@outcomes_app.command("list")
def list_outcomes(
    task: Annotated[str | None, typer.Option(help="Only of this task.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this candidate.")] = None,
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="Only what nothing is learnt from.")
    ] = False,
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the outcomes, newest first."""
    asked = {"task": task, "model": model, "quarantined": quarantined or None}
    with Client(server, key) as client:
        found = list(client.pages("/v1/outcomes", limit=200, **asked))
    if as_json:
        _print_json({"items": found})
    else:
        terminal.out.print(terminal.outcomes_table(found))


@outcomes_app.command("release")
def release_outcome(
    outcome_id: Annotated[str, typer.Argument(metavar="OUTCOME", help="Id of an outcome.")],
    server: Server = LOCAL_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Take an outcome out of quarantine: somebody looked, and it is as it says."""
    with Client(server, key) as client:
        answer = client.patch(f"/v1/outcomes/{quote(outcome_id, safe='')}", {"quarantined": False})
    if as_json:
        _print_json(answer)
    else:
        typer.echo(f"released {answer['id']}")


@estimator_app.command("show")
def show_estimator(server: Server = LOCAL_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """What the service's estimator was fitted to, how good it is, whether it still holds."""
    with Client(server, key) as client:
        answer = client.get("/v1/estimator")
    if as_json:
        _print_json(answer)
    else:
        terminal.out.print(terminal.estimator_report(answer))


@estimator_app.command("evaluate")
def evaluate_estimator(
    outcomes: Annotated[
        Path,
        typer.Option(
            exists=True, dir_okay=False, readable=True, help="Outcome table, CSV or Parquet."
        ),
    ],
    group: Annotated[str, typer.Option(help="Column; what is left out at a time.")] = "task",
    recipe: Annotated[str | None, typer.Option(help="Only outcomes of this recipe.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of resampling.")] = 0,
    as_json: AsJson = False,
) -> None:
    """How good the estimator is on a table of outcomes, beside baselines."""
    from app.catalogue import CandidateCard, load_cards
    from app.cost.evaluation import evaluate
    from app.cost.outcome_table import kind_of, read_outcomes

    table = read_outcomes(outcomes, kind_of(outcomes))
    sizes = {
        name: card.parameters
        for full_name, card in load_cards(_settings().models_dir, CandidateCard).items()
        for name in (full_name, full_name.partition(".")[0])
    }
    with terminal.progress_bars() as bars:
        bar = bars.add_task(outcomes.name, phase="reading", total=None)
        found = evaluate(
            table,
            group=group,
            recipe=recipe,
            parameters=sizes,
            seed=seed,
            on_progress=lambda name, done, total: bars.update(
                bar, phase=name, completed=done, total=total
            ),
        )
    answer = {
        **found.summary,
        "intervals": found.intervals,
        "baselines": found.baselines,
        "paired": {name: d and asdict(d) for name, d in found.paired.items()},
        "outcomes": str(outcomes),
        "group": group,
        "recipe": recipe,
        "tasks": len(found.tasks),
        "groups": found.n_groups,
        "candidates": found.n_candidates,
        "cells": found.n_cells,
        "timed_runs": found.n_timed_runs,
        "left_out": [
            {"row": fault.row, "column": fault.column, "reason": fault.reason}
            for fault in table.errors
        ],
    }
    if as_json:
        _print_json(answer)
    else:
        terminal.out.print(terminal.evaluation_report(answer))


@reference_app.command("build")
def build_reference(
    probe: Annotated[str | None, typer.Option(help="Probe to embed with [TASK2VEC_PROBE].")] = None,
    cache_dir: Annotated[
        Path, typer.Option(help="Fetched image sets and finished embeddings.")
    ] = Path(".cache/reference"),
    as_json: AsJson = False,
) -> None:
    """Embed the public image sets anew; takes up where it was interrupted."""
    _require_extras("worker", "reference")
    settings = _settings(probe=probe)

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
        _print_json({"library": str(written)})
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
    _require_extras("worker", "demo")

    from app.demo import run_demo

    result = run_demo(data_dir, terminal.err if as_json else terminal.out, record)
    if as_json:
        _print_json(result)


# --- shared by the commands


def _fail(sentence: str, exit_code: int) -> NoReturn:
    terminal.err.print("error: ", terminal.plain(sentence), sep="", style="red", soft_wrap=True)
    sys.exit(exit_code)


def _leave(_signal: int, _frame: object) -> NoReturn:
    sys.exit(OK)


def _print_json(value: Any, indent: int | None = 2) -> None:
    typer.echo(json.dumps(value, indent=indent, ensure_ascii=False))


def _settings(**asked: Any) -> Settings:
    """The environment's settings, with what the command line says instead."""
    try:
        return Settings(**{name: value for name, value in asked.items() if value is not None})
    except SettingsError as error:  # a list that is not written as JSON, say
        raise InvalidRequest(
            "setting-invalid", f"{error}.", "Lists are written as JSON; see docs/reference.md."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        variable = "TASK2VEC_" + "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidRequest(
            "setting-invalid",
            f"{variable}: {first['msg'].removeprefix('Value error, ')}.",
            "docs/reference.md lists the settings.",
        ) from error


def _require_extras(*extras: str) -> None:
    missing = {
        extra: [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
        for extra in extras
    }
    names = [name for found in missing.values() for name in found]
    if names:
        wanted = ",".join(extra for extra, found in missing.items() if found)
        raise Unavailable(
            "extra-missing",
            f"This needs packages that are not installed ({', '.join(names)}).",
            f"Run: pip install 'task2vec-service[{wanted}]'",
        )


def _require_keys(settings: Settings) -> None:
    if not settings.keys_required:
        return

    from app.store import keys

    with _database(settings) as database, database.session(read_only=True) as session:
        usable = keys.any_valid(session)
    if not usable:
        raise Conflict(
            "keys-required",
            f"Listening on {settings.host} asks for API keys, and there are none.",
            "Make one with `task2vec keys create NAME`, or listen on 127.0.0.1.",
        )


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    from app.store.session import Database

    database = Database(settings.store_url)
    try:
        database.migrate(shared_directory("migrations"))
        yield database
    finally:
        database.dispose()


def _log_like(ours: str, theirs: str) -> None:
    """Another library's warnings and errors, in our format."""
    logger = logging.getLogger(theirs)
    logger.handlers[:] = logging.getLogger(ours).handlers
    logger.propagate = False


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise Unavailable(
            "cannot-listen",
            f"Cannot listen on {host} port {port}: {error.strerror}.",
            "Choose another with --host and --port.",
        ) from error


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _upload(client: Client, path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    with terminal.upload_bar() as bars:
        bar = bars.add_task("", total=None if path.is_dir() else path.stat().st_size)
        return client.upload(
            "/v1/tasks", path, metadata, on_sent=lambda sent: bars.update(bar, completed=sent)
        )


def _follow(client: Client, job_id: str, title: str) -> None:
    with terminal.progress_bars() as bars:
        bar = bars.add_task(title, phase="queued", total=None)
        for progress in client.follow(job_id):
            terminal.show_progress(bars, bar, progress)


def _show_job(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(found)
    else:
        terminal.out.print(terminal.job_facts(found))


def _require_success(state: str, problem: dict[str, Any] | None) -> None:
    if state not in {"ready", "succeeded"}:
        said = problem or {}
        raise Conflict(
            f"task-{state}",
            str(said.get("detail") or f"The task is {state}."),
            str(said.get("remedy") or "See the server's log."),
        )


def _cards(
    kind: str,
    table: Callable[[list[dict[str, Any]]], Table],
    add: Path | None,
    server: str,
    key: str | None,
    as_json: bool,
) -> None:
    with Client(server, key) as client:
        if add is not None:
            try:
                card = tomllib.loads(add.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise InvalidRequest(
                    "card-invalid", f"{add} is not TOML: {error}.", "Mend the file."
                ) from error
            cards = [client.post(f"/v1/{kind}", card)]
        else:
            cards = client.get(f"/v1/{kind}")["items"]
    if as_json:
        _print_json({"items": cards})
    else:
        terminal.out.print(table(cards))


def _begin_move(settings: Settings) -> dict[str, Any]:
    _require_extras("worker")

    from app.catalogue import ProbeCard, get_card
    from app.embedding.probe import load_probe
    from app.store import reindex, spaces
    from app.store.blobs import BlobStore

    # Loaded here, though a worker will do the work: the space is not known before, and weights that
    # cannot be had are told now, not by every job.
    target = load_probe(get_card(settings.models_dir, ProbeCard, settings.probe), "cpu")
    with _database(settings) as database, database.session() as session:
        blobs = BlobStore(settings.blob_dir)
        begun = reindex.begin(session, blobs, target.card.name, target.space_id)
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

    with _database(settings) as database, database.session(read_only=True) as session:
        found = [asdict(count) for count in spaces.count_tasks(session)]
        return {"spaces": found, **asdict(reindex.progress(session))}


def _check(settings: Settings, *, deep: bool, repair: bool) -> dict[str, Any]:
    from app.store.blobs import BlobStore
    from app.store.check import check as check_store

    with _database(settings) as database, database.session(read_only=True) as session:
        blobs = BlobStore(settings.blob_dir)
        report = check_store(session, blobs, settings.index_dir, deep=deep, repair=repair)
    left = [finding for finding in report.findings if not finding.mended]
    return {
        "ok": not left,
        "checked": dict(report.checked),
        "findings": [asdict(finding) for finding in report.findings],
    }


# --- embeddings on this machine


def _embed_here(
    path: Path, out: Path, label_kind: LabelKind, settings: Settings, as_json: bool
) -> None:
    _require_extras("worker")

    from app.local import embed_here, write_embedding

    with terminal.progress_bars() as bars:
        bar = bars.add_task(path.name, phase="", total=None)

        def on_progress(phase: str, done: int, total: int) -> None:
            bars.update(bar, phase=phase, completed=done, total=total or None)

        embedding, report = embed_here(path, settings, label_kind, on_progress)
    write_embedding(out, embedding)
    summary = report.summary()
    facts = {
        "out": str(out),
        "images": embedding.provenance.n_images,
        "classes": embedding.provenance.n_classes,
        "complexity": embedding.complexity,
        "noise_floor": embedding.noise_floor,
        "space_id": embedding.space_id,
        "probe_digest": embedding.provenance.probe_digest,
    }
    if as_json:
        _print_json(facts | {"intake": summary})
    else:
        terminal.out.print(terminal.embedding_facts(facts, summary))


def _load_embedding(item: str, server: str, key: str | None) -> TaskEmbedding:
    from app.embedding.vector import TaskEmbedding

    if item.endswith(".npz"):
        return TaskEmbedding.from_npz(Path(item))
    with Client(server, key) as client:
        task = client.find_task(item)
        return TaskEmbedding.from_npz(
            client.download(f"/v1/tasks/{task['id']}/embedding", format="npz")
        )


if __name__ == "__main__":
    app()
