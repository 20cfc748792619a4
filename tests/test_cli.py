"""The command line as people and programs meet it: real server, real exit codes."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from filelock import FileLock
from matplotlib import rcParams
from PIL import Image
from resvg_py import svg_to_bytes
from rich.console import Console
from sqlalchemy import select
from typer.testing import CliRunner

from app import terminal
from app.api import schemas
from app.cli import app, export, names, picture
from app.cli.curve import draw_curve
from app.cli.map import draw_map
from app.cli.options import JobState, LabelKind, LabelKindOf, TaskStatus
from app.cli.shared import EXTRAS
from app.client import Client, ServerUnreachable
from app.cost.evidence import Evidence
from app.embedding import dataset
from app.embedding.distance import METRICS, one_to_one
from app.embedding.metric_names import MetricName
from app.embedding.parts import Population, row_of
from app.errors import InvalidRequest, Refused
from app.jobs import lock
from app.jobs import recalibrate as recalibration
from app.jobs.atlas import refresh
from app.settings import Settings, shared_directory
from app.store import finetunes, jobs, predictions
from app.store.blobs import LocalBlobs, open_blobs
from app.store.indexes import FaissIndexes
from app.store.intake import Intake
from app.store.jobs import EndState
from app.store.session import Database
from app.store.tables import Job, Task
from app.words import money
from tests.cost.outcomes import runs
from tests.images import make_zip, png
from tests.store.samples import make_embedding, ready_task, ship, without

NAMES = ("birds", "fish", "frogs", "frogs")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TASK2VEC_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tasks that a worker would have brought to their end."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    database = Database(settings.store_url)
    database.migrate(shared_directory("migrations"))
    with database.session() as session:
        for seed, name in enumerate(NAMES):
            ready_task(session, make_embedding(seed), tenant="local", name=name, tags=("animals",))
    database.dispose()
    return settings.data_dir


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped cards without the reference library, whose loading would take the tests' time."""
    directory = tmp_path_factory.mktemp("models")
    for kind in ("candidates", "devices", "probes", "recipes"):
        (directory / kind).symlink_to(shared_directory("models") / kind)
    return directory


def start_server(data_dir: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "app.cli", "serve", "--no-worker", "--port", "0", "--json"]
    return subprocess.Popen(
        [*command, "--data-dir", str(data_dir), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


@contextmanager
def serving(data_dir: Path, models_dir: Path) -> Iterator[str]:
    process = start_server(data_dir, TASK2VEC_MODELS_DIR=str(models_dir))
    with process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def server(data_dir: Path, models_dir: Path) -> Iterator[str]:
    with serving(data_dir, models_dir) as url:
        yield url


class Answer:
    def __init__(self, exit_code: int, stdout: str, stderr: str) -> None:
        self.exit_code, self.stdout, self.stderr = exit_code, stdout, stderr

    @property
    def json(self) -> Any:
        assert self.exit_code == 0, self.stderr
        return json.loads(self.stdout)


def task2vec(*args: object) -> Answer:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    return Answer(result.exit_code, result.stdout, result.stderr)


class Screen(io.StringIO):
    """What a terminal shows on stderr."""

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 30
        while text not in self.getvalue():
            assert time.monotonic() < end, f"{text!r} is not in {self.getvalue()!r}"
            time.sleep(0.01)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    console = Console(file=screen, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    monkeypatch.setattr("app.terminal.progress.err", console)
    return screen


def assert_error(answer: Answer, exit_code: int, *fragments: str) -> None:
    assert answer.exit_code == exit_code, answer.stderr
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1, answer.stderr
    for fragment in fragments:
        assert fragment in answer.stderr


# --- asking a server


def test_tasks_are_listed_and_filtered(server: str) -> None:
    items = task2vec("tasks", "--json", "--server", server).json["items"]
    assert {item["name"] for item in items} == set(NAMES)
    found = task2vec("tasks", "--json", "--server", server, "--name", "bir").json["items"]
    assert [item["name"] for item in found] == ["birds"]
    assert "birds" in task2vec("tasks", "--server", server).stdout
    told = task2vec("tasks", "--server", server, "--name", "dragon").stdout
    assert told.startswith("There is no task like that; ")


def test_neighbours_by_name_are_ranked_without_the_task_itself(server: str) -> None:
    answer = task2vec("neighbours", "birds", "-k", 2, "--json", "--server", server).json
    rows = answer["neighbours"]
    assert [row["rank"] for row in rows] == [1, 2]
    assert rows[0]["distance"] <= rows[1]["distance"]
    assert "birds" not in {row["name"] for row in rows}
    assert "Nearest to birds" in task2vec("neighbours", "birds", "--server", server).stdout


def test_distances_stand_in_the_order_given_whether_tasks_or_files(
    server: str, tmp_path: Path
) -> None:
    files = []
    for seed in (0, 1):
        path = tmp_path / f"{seed}.npz"
        path.write_bytes(make_embedding(seed).to_npz())
        files.append(path)

    asked = task2vec("distance", "fish", "birds", "--json", "--server", server).json
    assert asked["items"] == ["fish", "birds"]
    mixed = task2vec("distance", files[1], "birds", "--json", "--server", server).json
    here = task2vec("distance", files[1], files[0], "--json").json

    matrix = np.array(asked["distances"])
    assert matrix.shape == (2, 2)
    assert matrix[0, 0] == 0
    assert matrix[0, 1] > 0.01
    np.testing.assert_allclose(mixed["distances"], matrix, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(here["distances"], matrix, rtol=1e-6, atol=1e-12)


def test_of_many_tasks_only_those_are_looked_up_that_no_listing_tells(
    server: str, pets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("distance", "birds", "fish", pets, "pets", pets[:8], "fish", "--server", server)
    one_by_one, find, found = task2vec(*asked, "--json").json, Client.find_task, []

    def noting(client: Client, reference: str) -> Any:
        found.append(reference)
        return find(client, reference)

    monkeypatch.setattr(Client, "find_task", noting)
    monkeypatch.setattr(names, "_FEW", 3)
    assert task2vec(*asked, "--json").json == one_by_one
    assert found == [pets[:8]]
    assert_error(task2vec(*asked, "frogs"), 1, "2 tasks are called 'frogs'")
    assert_error(task2vec(*asked, "brids"), 1, "Did you mean 'birds'?")


def test_embeddings_of_all_tasks_are_written_into_one_table(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE_TASKS", 3)  # more than one page
    out = tmp_path / "all.parquet"
    answer = task2vec("export", "--out", out, "--json", "--server", server).json
    table = pl.read_parquet(out)
    assert answer == {"out": str(out), "tasks": len(NAMES), "bytes": out.stat().st_size}
    assert set(table["name"]) == set(NAMES)
    for seed, row in enumerate(reversed(table.rows(named=True))):
        assert row["name"] == NAMES[seed]
        assert np.array_equal(np.float32(row["vector"]), make_embedding(seed).vector)
    assert "4 tasks" in task2vec("export", "--out", out, "--server", server).stdout


def test_the_card_of_a_task_is_printed(server: str) -> None:
    printed = task2vec("card", "birds", "-k", 2, "--server", server).stdout
    assert printed.startswith('---\npretty_name: "birds"\n')
    assert "### Nearest tasks" in printed
    answer = task2vec("card", "birds", "-k", 2, "--json", "--server", server).json
    assert answer["card"] == printed


def test_what_a_command_prints_is_drawn_as_well(server: str, tmp_path: Path) -> None:
    near = tmp_path / "near.svg"
    printed = task2vec("--picture", near, "neighbours", "birds", "--server", server).stdout
    assert printed == task2vec("neighbours", "birds", "--server", server).stdout
    drawn = ElementTree.parse(near).getroot()
    text = " ".join(drawn.itertext()).replace("\xa0", " ")
    assert "Nearest to birds" in text
    assert "fish" in text
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", near.read_text())  # fetches nothing


def test_in_pixels_each_line_that_a_command_prints_is_one_of_letters(
    server: str, tmp_path: Path
) -> None:
    asked = ("neighbours", "birds", "--server", server)
    printed = task2vec("--picture", tmp_path / "near.png", *asked).stdout
    with Image.open(tmp_path / "near.png") as image:
        assert image.format == "PNG"
        bright = np.asarray(image.convert("L"))[10:-10, 10:-10] > 100  # without the frame
    inked = bright.any(axis=1).astype(int)
    _title, *lines = np.flatnonzero(np.diff(inked) == 1)
    assert len(lines) == len(printed.splitlines())
    # Letters are as wide as the columns that they stand in: the table's rule is one line.
    (rule,) = (line for line in printed.splitlines() if set(line.strip()) == {"─"})
    widths = [np.ptp(np.flatnonzero(bright[line + 1])) for line in lines]
    assert max(widths) == pytest.approx(len(rule.strip()) * 2 * 12.2, rel=0.02)


def test_where_there_is_nothing_to_draw_there_is_no_picture(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--picture", tmp_path / "no.svg")
    answer = task2vec(*asked, "tasks", "--json", "--server", server)
    assert answer.exit_code == 1
    assert answer.stderr.startswith("error: The command printed no table. Leave out --json")
    assert_error(task2vec(*asked, "neighbours", "nobody", "--server", server), 1, "nobody")
    elsewhere = ("--picture", tmp_path / "none" / "no.svg", "tasks", "--server", server)
    assert_error(task2vec(*elsewhere), 2, "There is no folder")
    monkeypatch.setattr(picture, "_MOST_PIXELS", 10_000)
    much = task2vec("--picture", tmp_path / "no.png", "tasks", "--server", server)
    assert much.exit_code == 1
    assert much.stderr.startswith("error: The command printed too much for a picture of pixels.")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_what_is_printed_is_asked_for_by_its_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = ("tasks", "--server", "http://127.0.0.1:9")
    assert_error(task2vec("--picture", "a.gif", *nowhere), 1, "a.gif", "ends in .svg, .png.")
    monkeypatch.setitem(EXTRAS, "bench", ("absent_bench",))
    wanted = "pip install 'task2vec-service[bench]'"
    assert_error(task2vec("--picture", "a.png", *nowhere), 1, "absent_bench", wanted)
    kept = ("check", "--data-dir", tmp_path)
    task2vec("migrate", "--data-dir", tmp_path)
    assert task2vec("--picture", tmp_path / "a.svg", *kept).exit_code == 0
    assert (tmp_path / "a.svg").is_file()


def test_of_an_export_only_what_was_asked_for_is_written(server: str, tmp_path: Path) -> None:
    out, asked = tmp_path / "some.parquet", ("--array", "vector", "--tag", "rocks")
    task2vec("export", "--out", out, *asked, "--json", "--server", server).json  # noqa: B018
    table = pl.read_parquet(out)
    assert (table.height, "vector" in table.columns, "domain" in table.columns) == (0, True, False)
    unknown = task2vec("export", "--out", out, "--array", "colour", "--server", server)
    assert_error(unknown, 1, "arrays", "'vector'")


def test_an_export_that_breaks_off_leaves_what_was_there(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, pages = tmp_path / "all.parquet", Client.tables

    def broken(*args: Any, **asked: Any) -> Iterator[bytes]:
        yield next(pages(*args, **asked))
        raise ServerUnreachable("server-unreachable", "No answer.", "Start it.")

    out.write_bytes(b"before")
    monkeypatch.setattr(Client, "tables", broken)
    assert_error(task2vec("export", "--out", out, "--server", server), 3, "Start it.")
    assert (out.read_bytes(), list(tmp_path.iterdir())) == (b"before", [out])


def test_the_metric_is_the_default_of_the_space_and_is_named(tmp_path: Path) -> None:
    """That of files comes with the reference library of their space."""
    files = []
    for seed in (0, 1):
        files.append(tmp_path / f"{seed}.npz")
        files[-1].write_bytes(make_embedding(seed).to_npz())
    bare = task2vec("distance", *files, "--json").json
    assert bare["metric"] == "cosine"
    assert_error(task2vec("distance", *files, "--metric", "label"), 1, "population")

    ship(tmp_path, {"zebras": make_embedding(8, space_id="elsewhere")}, "another")
    ship(tmp_path, {str(seed): make_embedding(seed) for seed in (5, 6)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASK2VEC_MODELS_DIR", str(tmp_path))
        answer = task2vec("distance", *files, "--json").json
        shown = task2vec("distance", *files).stdout
        named = task2vec("distance", *files, "--metric", "cosine", "--json").json
        without(tmp_path / "reference" / "probe.npz", "population_label", "population_domain")
        old = task2vec("distance", *files, "--json").json
    assert answer["metric"] == "combined"
    assert "combined distance" in shown
    assert named["distances"] == bare["distances"]
    assert old["metric"] == "cosine"
    rows = [row_of(make_embedding(seed)) for seed in range(7)]
    population = Population.of(np.stack(rows[5:7])[:, :48], 1e-9)
    expected = one_to_one(rows[0], rows[1], "combined", epsilon=1e-9, population=population)
    assert answer["distances"][0][1] == pytest.approx(expected)


def test_a_directed_distance_reads_from_row_to_column(tmp_path: Path) -> None:
    paths = []
    for seed in (0, 1):
        paths.append(tmp_path / f"{seed}.npz")
        paths[-1].write_bytes(make_embedding(seed).to_npz())
    forth = task2vec("distance", *paths, "--metric", "asymmetric_kl", "--json").json
    back = task2vec("distance", *paths[::-1], "--metric", "asymmetric_kl", "--json").json
    assert not forth["symmetric"]
    assert forth["distances"][0][1] != pytest.approx(forth["distances"][1][0])
    assert forth["distances"][0][1] == pytest.approx(back["distances"][1][0])


def test_files_of_two_spaces_are_not_compared(tmp_path: Path) -> None:
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for path in paths:
        path.write_bytes(make_embedding(0, space_id=path.stem).to_npz())
    assert_error(task2vec("distance", *paths), 1, "2 spaces")


def test_estimates_are_ranked_and_a_budget_leaves_out_what_may_cost_more(server: str) -> None:
    everything = task2vec("estimate", "birds", "--json", "--server", server).json["estimates"]
    assert len(everything) >= 25
    assert [row["rank"] for row in everything] == sorted(row["rank"] for row in everything)
    highest = sorted(row["money_usd"]["high"] for row in everything)
    budget = highest[len(highest) // 2]

    within = task2vec(
        "estimate", "birds", "--budget", budget, "-k", 3, "--json", "--server", server
    ).json["estimates"]
    affordable = [row for row in everything if row["money_usd"]["high"] <= budget]
    assert [row["candidate"] for row in within] == [row["candidate"] for row in affordable[:3]]
    assert [row["rank"] for row in within] == [1, 2, 3]

    slowest = max(row["seconds"]["high"] for row in within)
    in_time = task2vec(
        "estimate", "birds", "--budget-seconds", slowest, "--json", "--server", server
    ).json["estimates"]
    assert {row["candidate"] for row in in_time} == {
        row["candidate"] for row in everything if row["seconds"]["high"] <= slowest
    }
    nothing = task2vec("estimate", "birds", "--budget", 0, "--server", server)
    said = " ".join(nothing.stdout.split())
    assert "within the limits. The cheapest," in said
    cheapest = min(row["money_usd"]["high"] for row in everything)
    assert f"may take up to {money(cheapest)} and " in said


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_of_estimates_says_what_its_ranks_rest_on_and_breaks_no_name(
    server: str, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    rows = task2vec("estimate", "birds", "--json", "--server", server).json["estimates"]
    monkeypatch.setattr(terminal, "out", Console(width=width, highlight=False))
    shown = task2vec("estimate", "birds", "--server", server).stdout
    assert max(map(len, shown.splitlines())) <= width
    until = "published ImageNet accuracy (top-1) until outcomes are known"
    assert until in " ".join(shown.split())
    assert "uncalibrated" in shown
    assert f"{rows[0]['top1_percent']:.1f}%" in shown
    marked = sum(row["frontier"] for row in rows)
    assert 0 < marked < len(rows)
    assert shown.count("•") == marked + 2  # the column's name, and the caption that explains it
    # A name is cut only after an underscore or before the dot of its pretraining.
    joints = {piece for row in rows for piece in re.split(r"(?<=_)|(?=\.)", row["candidate"])}
    words = set(re.split(r"(?<=_)|(?=\.)|\s+", shown))
    assert joints <= words


@pytest.mark.parametrize("kind", ["candidates", "devices", "recipes", "probes"])
def test_the_catalogue_is_listed(server: str, kind: str) -> None:
    items = task2vec(kind, "--json", "--server", server).json["items"]
    assert items
    assert items[0]["name"][:8] in task2vec(kind, "--server", server).stdout


def test_a_device_of_ones_own_can_be_added_and_estimated_for(server: str, tmp_path: Path) -> None:
    shipped = next((shared_directory("models") / "devices").glob("*.toml"))
    card = tmp_path / "my-box.toml"
    card.write_text(shipped.read_text().replace(f'"{shipped.stem}"', '"my-box"'))
    assert task2vec("devices", "--add", card, "--json", "--server", server).exit_code == 0
    answer = task2vec("estimate", "fish", "--device", "my-box", "--json", "--server", server).json
    assert answer["device"] == "my-box"
    assert (
        task2vec("devices", "--remove", "my-box", "--server", server).stdout == "removed my-box\n"
    )
    assert_error(
        task2vec("devices", "--remove", "my-box", "--server", server), 1, "added no device"
    )
    assert_error(task2vec("devices", "--remove", "a10", "--server", server), 1, "of your own")


def test_a_candidate_is_timed_here_and_its_estimate_rests_on_it(server: str) -> None:
    name = "mobilenetv3_small_100.lamb_in1k"
    few = ("--steps", 5, "--seconds", 0, "--batch-size", 2, "--on", "cpu", "--busy")
    made = task2vec("time", "cpu-2core", name, *few, "--json", "--server", server).json["items"]
    assert [(each["candidate"], each["batch_size"]) for each in made] == [(name, 2)]
    listed = task2vec("timings", "--json", "--server", server).json["items"]
    assert listed == made
    assert "cpu-2core" in task2vec("timings", "--server", server).stdout
    asked = ("estimate", "birds", "--server", server, "--device")
    rows = task2vec(*asked, "cpu-2core", "--json").json["estimates"]
    assert [row["candidate"] for row in rows if row["timed"]] == [name]
    assert "task2vec time" not in task2vec(*asked, "cpu-2core").stdout
    assert "task2vec time a10" in task2vec(*asked, "a10").stdout
    take_back = ("timings", "--remove", name, "--server", server)
    assert "--device" in task2vec(*take_back).stderr
    assert task2vec(*take_back, "--device", "cpu-2core", "--json").json == {"items": []}
    assert "no timing" in task2vec(*take_back, "--device", "cpu-2core").stderr


def test_no_steps_are_timed_on_a_busy_machine(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 60.0)
    refused = task2vec("time", "cpu-2core", "--server", server)
    assert refused.exit_code != 0
    assert "--busy" in refused.stderr
    assert task2vec("timings", "--json", "--server", server).json == {"items": []}


def test_a_card_that_is_not_there_is_told_before_anything_is_timed(server: str) -> None:
    assert "Known are" in task2vec("time", "cpu-2cor", "--server", server).stderr
    assert "Did you mean" in task2vec("time", "cpu-2core", "resnet19", "--server", server).stderr


def test_what_cannot_be_timed_is_told_in_one_line(server: str) -> None:
    here = ("--server", server, "--on", "cpu")
    assert_error(task2vec("time", "abacus", *here), 1, "no device 'abacus'")
    assert_error(task2vec("time", "cpu-2core", "brain", *here), 1, "no candidate 'brain'")
    assert_error(task2vec("time", "a10", *here), 1, "is a gpu")
    elsewhere = ("--server", server, "--on", "meta")
    assert_error(task2vec("time", "cpu-2core", *elsewhere), 1, "compute on meta")


def test_jobs_are_listed_newest_first(server: str) -> None:
    here = ("--server", server)
    everything = task2vec("jobs", "--json", *here).json["items"]
    made = [job["created_at"] for job in everything]
    assert len(made) > 1
    assert made == sorted(made, reverse=True)
    assert task2vec("jobs", "-k", 1, "--json", *here).json["items"] == everything[:1]
    of_fish = task2vec("jobs", "--task", "fish", "--state", "succeeded", "--json", *here).json
    fish = task2vec("tasks", "--json", *here).json["items"]
    (task_id,) = [task["id"] for task in fish if task["name"] == "fish"]
    assert {(job["task_id"], job["state"]) for job in of_fish["items"]} == {(task_id, "succeeded")}
    assert everything[0]["id"][:8] in task2vec("jobs", *here).stdout
    assert "embed" in task2vec("jobs", "--state", "refused", "--task", "fish", *here).stdout


def test_a_run_is_begun_listed_and_shown(server: str, tmp_path: Path) -> None:
    name, here = "tf_efficientnet_lite0.in1k", ("--server", server)
    asked = ("finetune", "fish", name, "--recipe", "head_only", "--budget", 2.5, "--no-wait")
    begun = task2vec(*asked, "--json", *here).json
    assert (begun["state"], begun["candidate"], begun["recipe"]) == ("queued", name, "head_only")
    assert begun["asked"]["budget_seconds"] > 60
    listed = task2vec("finetunes", "--task", "fish", "--json", *here).json["items"]
    assert [run["id"] for run in listed] == [begun["id"]]
    assert begun["id"][:8] in task2vec("finetunes", *here).stdout
    assert "head_only on cpu-2core" in task2vec("finetunes", begun["id"], *here).stdout
    assert task2vec("cancel", begun["job_id"], *here).exit_code == 0
    assert task2vec("finetunes", begun["id"], "--json", *here).json["state"] == "cancelled"
    assert_error(task2vec("finetune", "fish", "brain", *here), 1, "no candidate 'brain'")


def test_candidates_are_asked_what_their_features_tell(server: str) -> None:
    name, here = "tf_efficientnet_lite0.in1k", ("--server", server)
    asked = ("score", "fish", "--candidate", name, "--no-wait", "--json", *here)
    (row,) = task2vec(*asked).json["scores"]
    assert (row["candidate"], row["state"]) == (name, "pending")
    assert "pending" in task2vec("score", "fish", "--candidate", name, "--no-wait", *here).stdout
    assert task2vec("cancel", row["job_id"], *here).exit_code == 0
    assert_error(task2vec("score", "fish", "--candidate", "brain", *here), 1, "no candidate")


def test_scores_are_told_beside_what_could_not_be_had() -> None:
    scores = {"ridge": 0.91, "knn": 0.84, "logme": -0.3, "h_score": 4.0, "lfc": 0.5, "leep": -1.2}
    answer = {
        "scores": [
            {"candidate": "a", "state": "scored", "scores": scores, "problem": None, "n_images": 7},
            {
                "candidate": "b",
                "state": "failed",
                "scores": None,
                "problem": {"detail": "gone"},
                "n_images": None,
            },
        ]
    }
    console = Console(width=100, record=True)
    console.print(terminal.scores_table(answer, "Told"))
    told = console.export_text()
    for expected in ("91%", "84%", "-0.3", "-1.2", "failed", "b: gone"):
        assert expected in told


def curve(n: int, *, is_traced: bool) -> list[dict[str, Any]]:
    return [
        {
            "number": number,
            "training_loss": 1 / number,
            "loss": 1.2 / number,
            "accuracy": 1 - 0.5 / number,
            "information": 100.0 / number if is_traced and number % 2 else None,
        }
        for number in range(1, n + 1)
    ]


@pytest.mark.parametrize(("is_traced", "panels"), [(True, 3), (False, 2)])
def test_the_curve_of_a_run_is_drawn(is_traced: bool, panels: int, tmp_path: Path) -> None:
    run = {"id": "1", "candidate": "net", "recipe": "full", "curve": curve(6, is_traced=is_traced)}
    draw_curve(run, tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text().count('id="axes_') == panels
    with pytest.raises(InvalidRequest, match="no epoch yet"):
        draw_curve({**run, "curve": []}, tmp_path / "curve.svg")


def atlas_of(n: int, *, n_own: int) -> dict[str, Any]:
    points = [
        {
            "id": str(number),
            "name": f"task ${number}$",
            "x": float(number),
            "y": float(7 * number % n),
            "cluster": None if number % 4 == 3 else number % 4,
            "complexity": 1.0 + number,
            "library": number >= n_own,
        }
        for number in range(n)
    ]
    clusters = [
        {"number": number, "name": f"kind $ {number}", "position": [number, 1.0]}
        for number in range(3)
    ]
    return {"tasks": n, "trustworthiness": 0.9, "items": points, "clusters": clusters}


@pytest.mark.parametrize("n_own", [0, 3, 12])
def test_the_atlas_is_drawn_with_its_clusters_and_the_users_own_tasks(
    n_own: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rcParams, "svg.fonttype", "none")  # as the user's own settings may say
    draw_map(atlas_of(12, n_own=n_own), tmp_path / "map.svg")
    drawn = (tmp_path / "map.svg").read_text()
    # matplotlib writes what a group of glyphs says into a comment before it.
    assert all(f"<!-- kind $ {number} -->" in drawn for number in range(3))
    assert drawn.count("<!-- task $") == n_own
    assert ("<!-- yours -->" in drawn) == (0 < n_own < 12)


@pytest.fixture(scope="module")
def two_kinds(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[str]:
    """A service that has drawn the map of two kinds of tasks, far from each other."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("two-kinds"))
    database = Database(settings.store_url)
    database.migrate(shared_directory("migrations"))
    with database.session() as session:
        for number in range(24):
            kind = make_embedding(number % 2, dimensions=24)
            noise = np.random.default_rng(number).normal(1, 0.01, 24).astype(np.float32)
            embedding = replace(kind, vector=kind.vector * noise, domain=kind.domain * noise)
            ready_task(session, embedding, tenant="local", name=f"task {number}")
    refresh(database, FaissIndexes(settings.index_dir), threads=1, stop=lambda: False)
    database.dispose()
    with serving(settings.data_dir, models_dir) as url:
        yield url


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_drawn_map_shows_each_cluster_in_a_colour_of_its_own(
    two_kinds: str, tmp_path: Path, ending: str
) -> None:
    drawn = tmp_path / f"map.{ending}"
    answer = task2vec("atlas", "--plot", drawn, "--json", "--server", two_kinds).json
    assert len(answer["clusters"]) == 2
    data = drawn.read_bytes()
    if ending == "svg":
        assert ElementTree.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"
        data = svg_to_bytes(svg_string=data.decode(), dpi=72)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        hue, saturation, _ = (np.asarray(band) for band in image.convert("HSV").split())
    hues = np.bincount(hue[saturation > 100] // 32, minlength=8)
    assert (hues > 50).sum() == 2, hues


def test_a_map_of_very_many_tasks_is_no_file_of_as_many_shapes(tmp_path: Path) -> None:
    draw_map(atlas_of(6_000, n_own=0), tmp_path / "map.svg")
    assert "<image" in (tmp_path / "map.svg").read_text()
    assert (tmp_path / "map.svg").stat().st_size < 2**20


@pytest.mark.parametrize(
    "command", [["atlas", "--plot", "map.doc"], ["finetunes", "one", "--plot", "curve.doc"]]
)
def test_what_cannot_be_drawn_is_told_before_anything_is_asked(command: list[str]) -> None:
    answer = task2vec(*command, "--server", "http://127.0.0.1:9")
    assert_error(answer, 1, "ends in .svg, .png, .pdf")


def test_a_run_that_ended_is_told_beside_its_forecast() -> None:
    classes = [
        {"name": f"kind {n}", "images": 5, "recall": n / 10, "precision": None if n == 0 else 0.5}
        for n in range(8)
    ]
    interval = {"low": 0.8, "typical": 0.9, "high": 0.95, "kind": "conformal_90"}
    run = {
        **{name: name for name in ("id", "task_id", "candidate", "recipe", "device")},
        "state": "succeeded",
        "problem": None,
        "warnings": ["the target is high"],
        "curve": [{}],
        "forecast": {"accuracy": interval, "seconds": {**interval, "typical": 60.0}},
        "result": {
            "ended": "patience",
            "epochs": 7,
            "steps": 70,
            "seconds": 90.0,
            "verdict": {
                "images": 40,
                "accuracy": 0.85,
                "interval": [0.7, 0.93],
                "classes": classes,
            },
        },
    }
    console = Console(width=100, record=True)
    console.print(terminal.finetune_report(run))
    told = console.export_text()
    for expected in ("90% 80-95", "85% 70-93", "90 s", "no longer fell", "high"):
        assert expected in told
    assert [f"kind {n}" in told for n in range(8)] == [True] * 5 + [False] * 3


@pytest.fixture
def database(data_dir: Path) -> Iterator[Database]:
    database = Database(Settings(data_dir=data_dir).store_url)
    yield database
    database.dispose()


def end(database: Database, data_dir: Path, job_id: str) -> None:
    """A run, as a worker would."""
    model = open_blobs(Settings(data_dir=data_dir).blobs_at).put(io.BytesIO(b"weights"))
    with database.session() as session:
        start = jobs.start_job(session, job_id, max_attempts=3)
        verdict = {"images": 9, "accuracy": 0.5, "interval": [0.2, 0.8], "classes": []}
        result = {"ended": "recipe", "epochs": 2, "steps": 4, "seconds": 1.0}
        result["verdict"] = verdict | {"calibration": 0.031}
        asked = {
            "result": result,
            "run": None,
            "forecast": None,
            "curve": curve(2, is_traced=False),
        }
        finetunes.finish(session, job_id, start.token, files={"model": model}, **asked)


def answer_one(database: Database, result: dict[str, Any], state: str) -> threading.Thread:
    """A worker that classifies what comes next."""

    def work() -> None:
        row = None
        while row is None:
            time.sleep(0.02)
            with database.session(read_only=True) as session:
                waiting = select(Job.id).where(Job.kind == "predict", Job.state == "queued")
                row = session.scalar(waiting)
        with database.session() as session:
            start = jobs.start_job(session, row, max_attempts=3)
            if state == "succeeded":
                predictions.finish(session, row, start.token, result)
            else:
                problem = Refused("no-readable-image", "No image there.", "Pack some.").problem()
                jobs.finish_job(session, row, start.token, state, problem=problem)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    return worker


def test_a_runs_model_classifies_images_and_becomes_a_candidate(
    server: str,
    data_dir: Path,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, here = "tf_efficientnet_lite0.in1k", ("--server", server)
    begun = task2vec("finetune", "birds", name, "--no-wait", "--json", *here).json
    run, table = begun["id"], tmp_path / "answer.csv"
    image = tmp_path / "wing.png"
    image.write_bytes(png())
    assert_error(task2vec("predict", run, image, *here), 1, "is queued: it has no model")
    assert_error(task2vec("register", run, *here), 1, "is queued: it has no model")
    end(database, data_dir, begun["job_id"])

    result = {
        "label_kind": "single_label",
        "classes": ["beak", "wing"],
        **predictions.packed([[(1, 0.9), (0, 0.1)]]),
        "images": {"wing.png": 0},
        "refused": {"notes.txt": "no image"},
    }
    worker = answer_one(database, result, "succeeded")
    told = task2vec("predict", run, image, "-k", 2, "--out", table, *here).stdout
    worker.join()
    for expected in ("wing 90%, beak 10%", "notes.txt: no image", "softmax", "off by 3%"):
        assert expected in " ".join(told.split())
    assert table.read_text().splitlines()[1] == "wing.png,wing,0.9,wing|beak,0.9|0.1"
    monkeypatch.setattr(predictions, "PAGE_LISTED", 3)
    several = {"a.png": 0, "b.png": 0, "c.png": 0}
    answer_one(database, result | {"images": several}, "succeeded")
    answered = task2vec("predict", run, tmp_path, "--json", *here).json
    assert [image["name"] for image in answered["images"]] == list(several)
    assert (answered["images"][0]["class"], answered["next_cursor"]) == ("wing", None)
    assert [file["name"] for file in answered["refused"]] == ["notes.txt"]
    answer_one(database, result, "refused")
    assert_error(task2vec("predict", run, image, *here), 1, "No image there. Pack some.")

    (tmp_path / "empty").mkdir()
    assert_error(task2vec("predict", run, tmp_path / "empty", *here), 1, "a folder with images in")
    drawn = task2vec("finetunes", run, "--plot", tmp_path / "curve.svg", *here).stdout
    assert drawn.endswith(f"\n\nThe picture: {tmp_path / 'curve.svg'}\n")
    wrong = task2vec("register", run, "--name", "Birds Lite", *here)
    assert_error(wrong, 1, "name: takes 100 or fewer of small letters, digits")
    card = task2vec("register", run, "--name", "birds-lite", "--json", *here).json
    assert (card["name"], card["parent"]) == ("birds-lite", name)
    assert_error(task2vec("register", run, "--name", "birds-lite", *here), 1, "already")
    listed = task2vec("candidates", "--remove", "birds-lite", "--json", *here).json["items"]
    assert "birds-lite" not in {card["name"] for card in listed}
    gone = task2vec("candidates", "--remove", "birds-lite", *here)
    assert_error(gone, 1, "added no candidate 'birds-lite'")


def test_of_many_images_the_first_are_told() -> None:
    answer = {
        "probabilities": "sigmoid",
        "calibration_error": None,
        "images": [
            {"name": f"image {n}", "classes": [{"name": "wing", "probability": 0.7}][: n % 2]}
            for n in range(25)
        ],
        "refused": [{"name": f"file {n}", "reason": "cut off"} for n in range(21)],
    }
    console = Console(width=100, record=True)
    console.print(terminal.prediction_report(answer))
    told = console.export_text()
    for expected in ("image 19", "and 5 images more", "and 1 file more left out", "wing 70%"):
        assert expected in told
    assert "image 20" not in told
    assert "Probabilities: sigmoid, not calibrated." in told


def test_a_card_that_is_no_toml_is_refused_here(server: str, tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text("name = ")
    assert_error(task2vec("devices", "--add", card, "--server", server), 1, "not TOML")


def test_an_upload_can_be_left_to_itself_looked_at_and_taken_back(
    server: str, tmp_path: Path
) -> None:
    folder = tmp_path / "shapes"
    for label, colour in (("warm", "red"), ("cold", "blue")):
        (folder / label).mkdir(parents=True)
        (folder / label / "1.png").write_bytes(png(colour))
    asked = ("--no-wait", "--tag", "mine", "--json", "--server", server)
    accepted = task2vec("embed", folder, *asked).json

    job = task2vec("job", accepted["job_id"], "--json", "--server", server).json
    assert (job["state"], job["task_id"]) == ("queued", accepted["id"])
    assert "queued" in task2vec("job", accepted["job_id"], "--server", server).stdout

    cancelled = task2vec("cancel", accepted["job_id"], "--json", "--server", server).json
    assert cancelled["state"] == "cancelled"
    tasks = task2vec("tasks", "--tag", "mine", "--json", "--server", server).json["items"]
    assert [(task["name"], task["status"]) for task in tasks] == [("shapes", "cancelled")]


def test_a_dataset_is_uploaded_as_what_it_was_taken_for(server: str, tmp_path: Path) -> None:
    rows = "file,label\na.png,warm\nb.png,cold\nc.png,cold\n"
    (tmp_path / "set.csv").write_text(rows)
    for name, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / f"{name}.png").write_bytes(png(colour))
    sent = task2vec("embed", tmp_path / "set.csv", "--no-wait", "--json", "--server", server)
    assert sent.json["input"] == {
        "taken_for": "a table of images (set.csv), image column file, label column label",
        "left_out": {"named in set.csv, but not there": 1},
    }
    assert "Taken for a table of images (set.csv)" in sent.stderr
    assert "Left out: 1 named in set.csv, but not there." in sent.stderr
    task = task2vec("tasks", "--json", "--server", server).json["items"][0]
    assert (task["id"], task["name"]) == (sent.json["id"], "set")
    task2vec("cancel", sent.json["job_id"], "--server", server)


def test_a_dataset_that_breaks_off_leaves_no_task(server: str, tmp_path: Path) -> None:
    before = task2vec("tasks", "--json", "--server", server).json
    (tmp_path / "a.png").write_bytes(png())
    lines = ('{"file": "a.png", "label": "x"}', '{"file": "gs://b/c.png", "label": "y"}')
    (tmp_path / "set.jsonl").write_text("\n".join(lines))
    broken = task2vec("embed", tmp_path / "set.jsonl", "--server", server)
    assert broken.exit_code == 1
    assert broken.stderr.splitlines()[-1].startswith("error: gs://b/c.png is not read here.")
    assert task2vec("tasks", "--json", "--server", server).json == before


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.0, "0"), (3e-9, "<0.0001"), (0.0001, "0.0001"), (-0.05, "-0.0500")],
)
def test_a_distance_shows_the_difference_between_small_and_none(
    value: float | None, shown: str
) -> None:
    assert terminal.distance(value).plain == shown


def test_neighbours_under_a_metric_without_noise_floor_are_shown(server: str) -> None:
    answer = task2vec("neighbours", "birds", "--metric", "kl", "--json", "--server", server).json
    assert {row["noise_floor"] for row in answer["neighbours"]} == {None}
    shown = task2vec("neighbours", "birds", "--metric", "kl", "--server", server)
    assert shown.exit_code == 0
    assert "exact kl distance" in shown.stdout


@pytest.fixture
def pets(data_dir: Path) -> Iterator[str]:
    """The id of a task that may be changed; what is left of it is deleted."""
    database = Database(Settings(data_dir=data_dir).store_url)
    with database.session() as session:
        task_id = ready_task(session, make_embedding(9), tenant="local", name="pets").id
    yield task_id
    with database.session() as session:
        for task in session.scalars(select(Task).where(Task.id == task_id)):
            session.delete(task)
    database.dispose()


def test_keys_go_by_how_their_ids_begin_and_say_where_they_are_valid(tmp_path: Path) -> None:
    where = ("--data-dir", tmp_path)
    made = task2vec("keys", "create", "me", *where)
    assert made.stdout.startswith("t2v_") and made.stdout.count("\n") == 1
    assert f"of the service in {tmp_path}: me, tenant local, may write." in made.stderr
    (key,) = task2vec("keys", "list", "--json", *where).json["items"]
    assert_error(task2vec("keys", "revoke", "zzzz", *where), 1, "no API key 'zzzz'")
    assert task2vec("keys", "revoke", key["id"][:8], "--json", *where).json["id"] == key["id"]


def test_ids_may_be_cut_as_tables_show_them(
    server: str, pets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "out", Console(width=70, highlight=False))
    shown = task2vec("tasks", "--server", server).stdout
    line = next(line for line in shown.splitlines() if " pets " in line)
    assert line.split()[0] == pets[:8]
    answer = task2vec("neighbours", pets[:8], "--json", "--server", server).json
    assert answer == task2vec("neighbours", pets, "--json", "--server", server).json


def test_a_task_is_called_otherwise_and_deleted_once_that_is_confirmed(
    server: str, pets: str
) -> None:
    where = ("--server", server)
    assert_error(task2vec("change", "pets", *where), 2, "--name, --tag")
    shown = task2vec("change", "pets", "--name", "beasts", "--tag", "a", "--tag", "b", *where)
    assert "beasts" in shown.stdout and "a, b" in shown.stdout
    assert shown.stderr == ""
    taken = task2vec("change", "beasts", "--name", "birds", *where)
    assert "1 other task of yours is called 'birds' too" in taken.stderr
    task2vec("change", pets, "--name", "beasts", *where)
    assert_error(task2vec("delete", "beasts", *where), 1, "'beasts'", pets, "--yes")
    assert task2vec("tasks", "--name", "beasts", "--json", *where).json["items"]
    assert task2vec("delete", pets[:8], "--yes", *where).stdout == f"deleted {pets}\n"
    assert_error(task2vec("delete", "beasts", "--yes", *where), 1, "no task of the id or name")


def test_a_name_that_is_taken_is_told_of_when_a_set_is_sent(
    server: str, pets: str, tmp_path: Path
) -> None:
    archive = tmp_path / "pets.zip"
    archive.write_bytes(make_zip({"a/x.png": png(), "b/y.png": png(1)}))
    where = ("--no-wait", "--json", "--server", server)
    sent = task2vec("embed", archive, *where)
    told = sent.stderr
    assert f"1 other task of yours is called 'pets' too ({pets})" in told
    assert f"task2vec change {sent.json['id'][:8]} --name" in told
    other = task2vec("embed", archive, "--name", "other", *where)
    assert "called" not in other.stderr
    for accepted in (sent, other):
        task2vec("delete", accepted.json["id"], "--yes", "--server", server)


def test_many_distances_have_numbers_for_heads_and_leave_out_the_last() -> None:
    names = [f"a-task-of-a-long-name-{at}" for at in range(12)]
    answer = {"metric": "combined", "distances": [[0.1234] * 12 for _ in names]}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal.distances_table(names, answer))
    shown = console.export_text()
    assert "11 a-task-of-a-long-name-10" in shown
    assert "0.…" not in shown
    assert re.search(r"Too narrow for 12, 11.*; --json has all.", shown)
    console.print(terminal.distances_table(names[:2], {**answer, "distances": [[0, 1], [1, 0]]}))
    assert "a-task-of-a-long-name-0  a-task-of-a-long-name-1" in console.export_text()
    twice = {**answer, "distances": [[0, 0], [0, 0]]}
    console.print(terminal.distances_table(["birds", "birds"], twice))
    assert re.search(r"2 birds +0 +0", console.export_text())


def test_a_plan_breaks_no_name() -> None:
    name = "vit_base_patch16_224.augreg_in21k_ft_in1k"
    interval = {"low": 0.8, "typical": 0.96, "high": 1.0}
    step = {
        "candidate": name,
        "weights_here": True,
        "accuracy": interval,
        "probability_best": 0.1,
        "seconds": {"low": 2400, "typical": 3840, "high": 8400},
        "expected_regret_points": 1.5,
        "money_usd_by_now": 0.21,
        "probability_target_by_now": 0.5,
    }
    answer = {
        "says": "So.",
        "tried": {},
        "target": 0.9,
        "steps": [step],
        "calibrated": False,
        "unknown": 0,
        "recipe": "full",
        "device": "cpu-2core",
    }
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal.plan_report(answer, "birds"))
    shown = console.export_text()
    assert "vit_base_patch16_224" in shown and ".augreg_in21k_ft_in1k" in shown
    assert "✓" in shown


def test_a_misspelt_task_is_told_which_may_be_meant(server: str) -> None:
    assert_error(task2vec("neighbours", "brids", "--server", server), 1, "Did you mean 'birds'?")


def test_files_that_were_left_out_are_told_with_why() -> None:
    files = [
        {"path": "cat/a.jpg", "status": "skipped", "label": "cat", "reason": "not an image"},
        {"path": "cat/b.jpg", "status": "used", "label": "cat", "reason": None},
    ]
    warning = {"code": "x", "message": "Few.", "files": []}
    answer = {"summary": {"used": 1, "skipped": 1, "warnings": [warning]}, "files": files}
    console = Console(width=80, record=True, file=io.StringIO())
    pets = {"name": "pets", "status": "ready", "problem": None}
    console.print(terminal.intake_report(answer, pets, all_files=False))
    shown = console.export_text()
    assert shown.startswith("1 image of pets used, 1 file left out.\nFew.\n")
    assert re.search(r"cat/a.jpg +not an image", shown)
    assert "b.jpg" not in shown
    console.print(terminal.intake_report(answer, pets, all_files=True))
    assert re.search(r"cat/b.jpg +used", console.export_text())


@pytest.mark.parametrize(
    ("state", "intake"),
    [
        ("refused", Intake("auto", None, None, {"used": 2, "skipped": 0, "warnings": []}, [])),
        ("failed", None),
    ],
)
def test_of_a_task_that_came_to_nothing_the_intake_tells_its_problem_first(
    server: str, database: Database, tmp_path: Path, state: EndState, intake: Intake | None
) -> None:
    archive, here = tmp_path / "pond.zip", ("--server", server)
    archive.write_bytes(make_zip({"a/x.png": png(), "b/y.png": png(1)}))
    sent = task2vec("embed", archive, "--no-wait", "--json", *here).json
    problem = Refused("one-class", "It has one class.", "Add a class.").problem()
    with database.session() as session:
        token = jobs.start_job(session, sent["job_id"], max_attempts=3).token
        jobs.finish_job(session, sent["job_id"], token, state, problem=problem, intake=intake)
    shown, told = task2vec("intake", sent["id"], *here), ["2 images of pond fit, 0 files left out."]
    first = f"pond ({state}): It has one class. Add a class."
    assert shown.stdout.splitlines() == [first, *(told if intake else [])]
    answer = task2vec("intake", sent["id"], "--json", *here).json
    assert (answer["problem"], answer["files"]) == (problem, [])
    assert_error(task2vec("neighbours", sent["id"], *here), 1, f"task2vec intake {sent['id'][:8]}")
    task2vec("delete", sent["id"], "--yes", *here)


def test_a_list_of_nothing_says_whether_that_is_due_to_what_was_asked_for() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    for filtered in (False, True):
        console.print(terminal.tasks_table([], filtered=filtered))
        console.print(terminal.jobs_table([], filtered=filtered))
        console.print(terminal.outcomes_table([], filtered=filtered))
        nothing = {"neighbours": [], "metric": "combined"}
        console.print(terminal.neighbours_table(nothing, "Nearest", filtered=filtered))
    outcomes = (
        "`task2vec finetune` makes one, `task2vec outcomes import` adds those of a table, and "
        "`POST /v1/outcomes` reports one of elsewhere."
    )
    assert console.export_text().splitlines() == [
        "There is no task yet; `task2vec embed FOLDER` makes one.",
        "There is no job yet; `task2vec embed FOLDER` begins one.",
        f"There is no outcome yet; {outcomes}",
        "There is no other task yet to compare it with.",
        "There is no task like that; `task2vec embed FOLDER` makes one.",
        "There is no job like that; `task2vec embed FOLDER` begins one.",
        f"There is no outcome like that; {outcomes}",
        "There is no other task like that to compare it with.",
    ]


# --- errors


def test_no_server_is_exit_code_3_and_says_what_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    answer = task2vec("tasks", "--server", "http://127.0.0.1:9", "--json")
    assert_error(answer, 3, "127.0.0.1:9", "task2vec serve")


def test_an_unknown_task_is_exit_code_1(server: str) -> None:
    assert_error(task2vec("neighbours", "dragons", "--server", server), 1, "'dragons'")


def test_an_ambiguous_name_is_exit_code_1_and_lists_the_ids(server: str) -> None:
    assert_error(task2vec("neighbours", "frogs", "--server", server), 1, "2 tasks")


def test_what_the_server_refuses_is_told_in_its_words(server: str, tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    archive.write_bytes(make_zip({"../evil.png": png()}))
    answer = task2vec("embed", archive, "--server", server)
    assert answer.exit_code == 1
    assert answer.stderr.startswith("Taken for an archive.\nerror: ")
    assert "evil.png" in answer.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("nonsense",),
        ("neighbours",),
        ("neighbours", "a", "-k", "many"),
        ("embed", "/does/not/exist"),
        ("distance", "a"),
        ("distance", "a", "b", "--metric", "manhattan"),
        ("embed", "pyproject.toml", "--local"),
        ("embed", "pyproject.toml", "--local", "--out", "/does/not/exist/x.npz"),
        ("embed", "pyproject.toml", "--out", "x.npz"),
        ("keys",),
        ("finetune", "a", "b", "--budget", "much"),
        ("finetune", "a", "b", "--out", "x", "--no-wait"),
        ("finetunes", "--plot", "x.svg"),
        ("predict", "a", "/does/not/exist"),
        ("predict", "a", "pyproject.toml", "--out", "/does/not/exist/x.csv"),
        ("predict", "a", "pyproject.toml", "--threshold", "1"),
        ("tasks", "--key", "t2v_a b"),
    ],
)
def test_wrong_usage_is_exit_code_2_in_one_line(command: tuple[str, ...]) -> None:
    assert_error(task2vec(*command), 2, "--help")


def test_what_can_be_no_key_is_told_before_it_is_sent_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TASK2VEC_KEY", "hello-wörld")
    answer = task2vec("tasks")
    assert_error(answer, 2, "TASK2VEC_KEY", "A key is ASCII without spaces, as t2v_...")
    assert "wörld" not in answer.stderr


def test_a_taken_port_and_a_served_directory_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = task2vec("serve", "--port", port, "--data-dir", tmp_path)
    assert_error(answer, 1, f"127.0.0.1 port {port}: Address already in use. Choose")
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.1)
    with FileLock(tmp_path / "worker.lock"):
        answer = task2vec("serve", "--port", 0, "--data-dir", tmp_path)
    assert (answer.exit_code, answer.stdout) == (1, "")
    waiting, told = answer.stderr.splitlines()
    assert waiting.startswith(f"Another worker holds {tmp_path}; ")
    assert told.startswith("error: Another worker holds ") and "--no-worker" in told


def test_a_wrong_setting_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK2VEC_DRAWS", "none")
    assert_error(task2vec("keys", "list"), 1, "TASK2VEC_DRAWS")


def test_a_file_that_is_no_embedding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"nothing")
    assert_error(task2vec("distance", path, path), 1, "a.npz")
    with path.open("wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    answer = task2vec("distance", path, path)
    assert_error(answer, 1, "a.npz", "embed --local")
    assert "pickle" not in answer.stderr
    absent = tmp_path / "absent.npz"
    assert_error(task2vec("distance", absent, path), 1, "absent.npz")


def test_what_nobody_foresaw_is_still_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_asked: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("app.client.Client.pages", fail)
    assert_error(task2vec("tasks"), 1, "RuntimeError", "TASK2VEC_DEBUG")


def test_interruption_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: object, **_asked: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.client.Client.pages", interrupt)
    assert_error(task2vec("tasks"), 130)


@pytest.mark.parametrize(
    ("command", "extras"),
    [
        (("serve",), ("worker",)),
        (("worker",), ("worker",)),
        (("embed", "tests", "--local", "--out", "x.npz"), ("worker",)),
        (("demo",), ("worker", "demo")),
        (("reference", "build"), ("worker", "reference")),
        (("reindex",), ("worker",)),
    ],
)
def test_missing_extras_are_named_with_their_pip_command(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], extras: tuple[str, ...]
) -> None:
    for extra in extras:
        monkeypatch.setitem(EXTRAS, extra, (f"absent_{extra}",))
    wanted = f"pip install 'task2vec-service[{','.join(extras)}]'"
    assert_error(task2vec(*command), 1, wanted, *(f"absent_{extra}" for extra in extras))


def test_the_choices_are_those_of_the_service() -> None:
    assert set(get_args(MetricName)) == set(get_args(schemas.MetricName)) == set(METRICS)
    assert get_args(LabelKind) == get_args(schemas.LabelKindAsked)
    assert set(get_args(LabelKind)) == {"auto", *get_args(dataset.LabelKind)}
    assert get_args(LabelKindOf) == get_args(dataset.LabelKind)
    assert get_args(TaskStatus) == get_args(schemas.TaskStatus)
    assert get_args(JobState) == get_args(schemas.JobState)


@pytest.mark.parametrize(
    ("command", "slow"),
    [
        (("backup", "copies"), "put"),
        (("restore", "copies"), "put"),
        (("check", "--deep"), "open"),
        (("forget", "local", "--yes"), "delete"),
    ],
)
def test_a_terminal_sees_how_far_a_command_is_and_programs_read_json_alone(
    command: tuple[str, ...],
    slow: str,
    screen: Screen,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    database = Database(Settings(data_dir=tmp_path / "data").store_url)
    database.migrate(shared_directory("migrations"))
    blobs = open_blobs((tmp_path / "data" / "blobs").as_uri())
    with database.session() as session:
        for seed in range(3):
            archive = blobs.put(io.BytesIO(b"pictures %d" % seed))
            ready_task(session, make_embedding(seed), tenant="local", archive=archive)
    database.dispose()
    if command[0] == "restore":
        task2vec("backup", "copies", "--data-dir", "data")
        shutil.rmtree("data")
    work, seen = getattr(LocalBlobs, slow), 0

    def slowly(*args: Any) -> Any:
        nonlocal seen
        if seen < 3:
            screen.wait_for(f"{seen}/3")
            seen += 1
        return work(*args)

    monkeypatch.setattr(LocalBlobs, slow, slowly)
    answer = task2vec(*command, "--json", "--data-dir", "data")
    assert isinstance(answer.json, dict)
    assert (seen, answer.stderr) == (3, "")


def test_a_terminal_sees_how_many_tasks_were_found_and_what_is_waited_for(
    server: str, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, post, found = Client.find_task, Client.post, 0

    def find_slowly(*args: Any) -> Any:
        nonlocal found
        screen.wait_for(f"{found}/3")
        found += 1
        return find(*args)

    def post_slowly(*args: Any) -> Any:
        screen.wait_for("waiting for distances")
        return post(*args)

    monkeypatch.setattr(Client, "find_task", find_slowly)
    monkeypatch.setattr(Client, "post", post_slowly)
    answer = task2vec("distance", "birds", "fish", "birds", "--json", "--server", server).json
    assert np.shape(answer["distances"]) == (3, 3)


def test_where_nobody_looks_no_progress_is_told(tmp_path: Path) -> None:
    where = ("--data-dir", tmp_path)
    for command in (("migrate",), ("check",), ("tenants",), ("backup", tmp_path / "copies")):
        assert task2vec(*command, *where).stderr == ""


@pytest.mark.parametrize(("state", "shown"), [("succeeded", 104), ("failed", 96), ("running", 96)])
def test_a_bar_is_full_only_when_the_job_succeeded(state: str, shown: int) -> None:
    bars = terminal.progress_bars()
    bar = bars.add_task("set", phase="queued", total=None)
    progress = {"state": state, "phase": "fisher", "done": 96, "total": 104}
    terminal.show_progress(bars, bar, {**progress, "remaining_seconds": None})
    assert (bars.tasks[0].completed, bars.tasks[0].total) == (shown, 104)


def test_control_characters_of_a_name_never_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = {"images": 1, "classes": 1}
    task = {"id": "t", "name": "a\x1b[2Jb[red]", "status": "ready", "tags": [], "complexity": 1.0}
    monkeypatch.setattr(
        "app.client.Client.pages", lambda *_args, **_kw: iter([task | {"counts": counts}])
    )
    shown = task2vec("tasks").stdout
    assert "\x1b[2J" not in shown
    assert "[red]" in shown


# --- serving and keys


def test_the_database_is_migrated_without_serving_and_once_more_changes_nothing(
    tmp_path: Path,
) -> None:
    versions = shared_directory("migrations") / "versions"
    newest = max(path.name[:4] for path in versions.glob("[0-9]*.py"))
    for _ in range(2):
        answer = task2vec("migrate", "--data-dir", tmp_path, "--json")
        assert answer.json == {"revision": newest}
    assert newest in task2vec("migrate", "--data-dir", tmp_path).stdout


def test_beyond_loopback_serve_refuses_to_start_without_a_key(tmp_path: Path) -> None:
    answer = task2vec("serve", "--no-worker", "--host", "0.0.0.0", "--data-dir", tmp_path)
    assert_error(answer, 1, "0.0.0.0", "task2vec keys create", "TASK2VEC_OIDC_ISSUER")


def test_beyond_loopback_a_provider_of_tokens_is_a_way_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASK2VEC_OIDC_ISSUER", "https://provider.example")
    monkeypatch.setenv("TASK2VEC_OIDC_AUDIENCE", "task2vec")
    taken = socket.create_server(("0.0.0.0", 0))
    where = ("--host", "0.0.0.0", "--port", taken.getsockname()[1], "--data-dir", tmp_path)
    assert_error(task2vec("serve", "--no-worker", *where), 1, "Cannot listen")
    taken.close()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ISSUER": "https://provider.example"}, "TASK2VEC_OIDC_AUDIENCE"),
        ({"ISSUER": "http://provider.example", "AUDIENCE": "x"}, "TASK2VEC_OIDC_ISSUER"),
        ({"ISSUER": "provider", "AUDIENCE": "x"}, "TASK2VEC_OIDC_ISSUER"),
    ],
)
def test_a_provider_of_tokens_is_named_whole_and_reached_encrypted(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], named: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"TASK2VEC_OIDC_{name}", value)
    assert_error(task2vec("keys", "list"), 1, named)


def test_a_revoked_key_does_not_open_the_door(tmp_path: Path) -> None:
    secret = task2vec("keys", "create", "me", "--data-dir", tmp_path).stdout.strip()
    assert secret.startswith("t2v_")
    (key,) = task2vec("keys", "list", "--data-dir", tmp_path, "--json").json["items"]
    assert (key["name"], key["tenant"], key["revoked_at"]) == ("me", "local", None)
    assert secret not in json.dumps(key)

    assert task2vec("keys", "revoke", key["id"], "--data-dir", tmp_path).exit_code == 0
    (key,) = task2vec("keys", "list", "--data-dir", tmp_path, "--json").json["items"]
    assert key["revoked_at"] is not None
    answer = task2vec("serve", "--no-worker", "--host", "0.0.0.0", "--data-dir", tmp_path)
    assert_error(answer, 1, "there are none")
    assert_error(task2vec("keys", "revoke", "nobody", "--data-dir", tmp_path), 1, "nobody")


def test_a_key_has_the_scope_and_the_end_that_were_asked_for(tmp_path: Path) -> None:
    create = ("keys", "create", "ci", "--data-dir", tmp_path, "--json")
    made = task2vec(*create, "--scope", "read", "--expires-in", "90d").json
    assert made["secret"].startswith(made["prefix"])
    ends = datetime.fromisoformat(made["expires_at"])
    assert 89 <= (ends - datetime.now(UTC)).days <= 90
    made = task2vec(*create, "--expires-in", "2100-01-31").json
    assert (made["scope"], made["expires_at"]) == ("write", "2100-01-31T00:00:00+00:00")
    assert_error(task2vec(*create, "--expires-in", "soon"), 1, "soon", "90d")
    assert_error(task2vec(*create, "--expires-in", "2001-01-31"), 1, "2001-01-31")
    assert task2vec(*create, "--scope", "root").exit_code == 2
    assert len(task2vec("keys", "list", "--data-dir", tmp_path, "--json").json["items"]) == 2


def test_a_rotated_key_has_a_successor_and_ends_after_the_overlap(tmp_path: Path) -> None:
    where = ("--data-dir", tmp_path, "--json")
    old = task2vec("keys", "create", "me", *where).json
    new = task2vec("keys", "rotate", old["id"], "--overlap", "12h", *where).json
    assert new["secret"] not in (None, old["secret"])
    before, after = task2vec("keys", "list", *where).json["items"]
    assert (before["replaced_by"], after["replaced_by"]) == (new["id"], None)
    ends = datetime.fromisoformat(before["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=11) < ends <= timedelta(hours=12)
    assert_error(task2vec("keys", "rotate", old["id"], *where), 1, new["id"])
    rows = task2vec("audit", *where).json["items"]
    assert [(row["actor"], row["action"], row["object_id"]) for row in rows] == [
        ("shell", "task2vec keys rotate", new["id"]),
        ("shell", "task2vec keys create", old["id"]),
    ]
    assert "rotate" in task2vec("audit", "--data-dir", tmp_path, "--limit", "1").stdout
    assert task2vec("audit", *where, "--tenant", "other").json["items"] == []
    assert task2vec("audit", *where, "--refused").json["items"] == []
    assert_error(task2vec("keys", "rotate", new["id"], "--overlap", "a day", *where), 1, "a day")


def test_a_server_with_keys_answers_only_to_them(tmp_path: Path, models_dir: Path) -> None:
    secret = task2vec("keys", "create", "me", "--data-dir", tmp_path, "--json").json["secret"]
    with start_server(
        tmp_path, TASK2VEC_AUTH="required", TASK2VEC_MODELS_DIR=str(models_dir)
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        keyless = task2vec("tasks", "--server", url)
        assert_error(keyless, 1, "Give one by --key or TASK2VEC_KEY; `task2vec keys create`")
        assert "Bearer" not in keyless.stderr
        assert task2vec("tasks", "--server", url, "--key", secret, "--json").json == {"items": []}
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_port_in_use_is_said_in_one_line(server: str, tmp_path: Path) -> None:
    port = server.rpartition(":")[2]
    answer = task2vec("serve", "--no-worker", "--port", port, "--data-dir", tmp_path)
    assert_error(answer, 1, port, "--port")


def test_a_service_that_cannot_start_says_so_in_one_line_after_its_log(tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "broken.toml").write_text('name = "broken"')
    with start_server(tmp_path / "data", TASK2VEC_MODELS_DIR=str(tmp_path)) as process:
        _, stderr = process.communicate(timeout=60)
    *log, error = stderr.splitlines()
    assert process.returncode == 1
    assert error.startswith("error: The service did not start.")
    assert "broken.toml" in " ".join(json.loads(line)["event"] for line in log)


def test_the_version_and_the_help_are_printed() -> None:
    assert task2vec("--version").stdout.strip()
    assert "neighbours" in task2vec().stdout


@pytest.mark.parametrize("command", [(), ("tasks",), ("keys", "create"), ("keys",)])
def test_beside_a_flag_stands_no_type_in_help(command: tuple[str, ...]) -> None:
    shown = task2vec(*command, "--help").stdout
    assert "--help" in shown
    assert "bool" not in shown


# --- another space


def test_a_move_reports_tasks_without_images_and_leaves_them(data_dir: Path) -> None:
    pytest.importorskip("torch")
    begun = task2vec("reindex", "--data-dir", data_dir, "--json").json
    assert (begun["probe"], begun["queued"], begun["there"]) == ("tf_efficientnet_lite0", 0, 0)
    assert len(begun["without_images"]) == len(NAMES)
    shown = " ".join(task2vec("reindex", "--data-dir", data_dir).stdout.split())
    assert begun["space_id"] in shown
    assert "without images" in shown

    status = task2vec("reindex", "--status", "--data-dir", data_dir, "--json").json
    assert (status["queued"], status["running"], status["embedded"], status["left"]) == (
        0,
        0,
        0,
        [],
    )
    (space,) = (space for space in status["spaces"] if space["space_id"] == "space")
    assert space["tasks"] >= len(NAMES)
    assert "Spaces" in task2vec("reindex", "--status", "--data-dir", data_dir).stdout


def test_a_move_to_a_probe_whose_weights_cannot_be_had_queues_nothing(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "probes").mkdir()
    card = shared_directory("models") / "probes" / "tf_efficientnet_lite1.toml"
    text = card.read_text().replace("package:efficientnet", "package:no_such")
    (tmp_path / "probes" / card.name).write_text(text)
    monkeypatch.setenv("TASK2VEC_MODELS_DIR", str(tmp_path))
    answer = task2vec("reindex", "--probe", card.stem, "--data-dir", data_dir)
    assert_error(answer, 1, "pip install no-such")
    status = task2vec("reindex", "--status", "--data-dir", data_dir, "--json").json
    assert status["queued"] == 0


# --- without a server


def test_embed_local_writes_every_array_of_the_contract(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    colours = {"warm": ("red", "orange", "yellow"), "cold": ("blue", "navy", "cyan")}
    archive = tmp_path / "colours.zip"
    archive.write_bytes(
        make_zip(
            {
                f"{label}/{colour}.png": png(colour, 40)
                for label, group in colours.items()
                for colour in group
            }
        )
    )
    out = tmp_path / "colours.npz"
    answer = task2vec("embed", archive, "--local", "--out", out, "--device", "cpu", "--json").json
    assert (answer["images"], answer["classes"]) == (6, 2)

    with np.load(out, allow_pickle=False) as arrays:
        for name in ("vector", "domain", "label", "draw_error", "sampling_error"):
            assert arrays[name].dtype == np.float32
            assert arrays[name].shape == arrays["vector"].shape
        assert float(arrays["complexity"]) == pytest.approx(answer["complexity"])
        assert float(arrays["noise_floor"]) >= 0
        assert json.loads(str(arrays["provenance"]))["n_images"] == 6
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert task2vec("distance", out, out, "--json").json["distances"][0][1] == 0


def test_embed_local_takes_a_dataset_and_gives_what_its_folder_gives(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    colours = {"warm": ("red", "orange", "yellow"), "cold": ("blue", "navy", "cyan")}
    rows = [(f"{colour}.png", label) for label, group in colours.items() for colour in group]
    for name, label in rows:
        for folder in ("flat", f"folders/{label}"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(png(name.removesuffix(".png"), 40))
    table = "\n".join(["image,kind", *(f"{name},{label}" for name, label in rows)])
    (tmp_path / "flat" / "train.csv").write_text(table)
    vectors = []
    for folder in ("flat", "folders"):
        out = tmp_path / f"{folder}.npz"
        local = ("--local", "--out", out, "--device", "cpu", "--json")
        answer = task2vec("embed", tmp_path / folder, *local).json
        assert answer["input"]["left_out"] == {}
        with np.load(out, allow_pickle=False) as arrays:
            vectors.append(arrays["vector"])
    assert np.array_equal(*vectors)


@pytest.mark.slow
def test_the_demo_runs_to_its_end_and_leaves_nothing_running(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    result = subprocess.run(
        [sys.executable, "-m", "app.cli", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)
    assert len(shown["tasks"]) >= 3
    assert all(
        any(row["library"] for row in answer["neighbours"]) for answer in shown["neighbours"]
    )
    assert shown["estimates"]["estimates"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("TASK2VEC_DATABASE_URL", "nonsense", "sqlite:///PATH"),
        ("TASK2VEC_DATABASE_URL", "mysql://host/name", "mysql is not read here"),
        ("TASK2VEC_BLOB_URL", "s3:bucket", "s3://BUCKET/PREFIX"),
        ("TASK2VEC_BLOB_URL", "file://archives", "file:///DIRECTORY"),
        ("TASK2VEC_JOBS_URL", "redis://host", "redis is not read here"),
        ("TASK2VEC_VECTOR_INDEX", "pgvector", "TASK2VEC_DATABASE_URL"),
        ("TASK2VEC_SOURCE_PREFIXES", "foo", "TASK2VEC_SOURCE_PREFIXES: write it as a JSON list"),
        ("TASK2VEC_DRAWS", "0", "TASK2VEC_DRAWS"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_line(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    result = CliRunner().invoke(app, ["serve", "--no-worker", "--port", "0"])
    assert result.exit_code == 1
    assert told in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


# --- check


def test_check_says_what_fits_and_what_does_not(data_dir: Path, models_dir: Path) -> None:
    """The archives that these tasks are said to have were never stored."""
    answer = task2vec("check", "--json", "--data-dir", data_dir)
    found = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert not found["ok"]
    assert found["checked"]["archives"] >= len(NAMES)  # other tests here add some
    assert {finding["kind"] for finding in found["findings"]} == {"archive"}
    told = task2vec("check", "--data-dir", data_dir)
    assert told.exit_code == 1
    assert "is not there" in " ".join(told.stdout.split())


def test_check_of_an_empty_store_is_content(tmp_path: Path) -> None:
    assert task2vec("migrate", "--data-dir", tmp_path).exit_code == 0
    answer = task2vec("check", "--data-dir", tmp_path)
    assert answer.exit_code == 0
    assert "Everything fits together." in answer.stdout


def test_a_repair_is_in_the_audit_log_and_a_look_is_not(tmp_path: Path) -> None:
    where = ("--data-dir", tmp_path, "--json")
    task2vec("migrate", *where)
    task2vec("check", *where)
    assert task2vec("audit", *where).json["items"] == []
    assert task2vec("check", "--repair", *where).exit_code == 0
    (row,) = task2vec("audit", *where).json["items"]
    assert (row["actor"], row["action"]) == ("shell", "task2vec check --repair")


# --- atlas


def test_a_store_is_backed_up_listed_verified_and_restored(tmp_path: Path) -> None:
    database = Database(Settings(data_dir=tmp_path / "data").store_url)
    database.migrate(shared_directory("migrations"))
    archive = open_blobs((tmp_path / "data" / "blobs").as_uri()).put(io.BytesIO(b"pictures"))
    with database.session() as session:
        ready_task(session, make_embedding(0), tenant="local", name="birds", archive=archive)
    database.dispose()
    dest, own = tmp_path / "backups", ("--data-dir", tmp_path / "data")
    assert_error(task2vec("backup", "--list", dest), 1, "no backup")
    assert_error(task2vec("restore", dest), 1, "no backup")
    assert_error(task2vec("backup", tmp_path / "data" / "blobs" / "b", *own), 1, "own store")
    made = task2vec("backup", dest, "--json", *own).json
    assert (made["tasks"], made["blobs"], made["missing"]) == (1, 1, [])
    newest = task2vec("backup", dest, "--keep", 1, "--json", *own).json
    assert newest["forgotten"] == 1
    [listed] = task2vec("backup", "--list", dest, "--json").json["items"]
    assert listed == {name: newest[name] for name in listed}
    assert newest["id"] in task2vec("backup", "--list", dest).stdout
    assert "whole" in task2vec("restore", dest, "--verify").stdout
    other = ("--data-dir", tmp_path / "other")
    assert task2vec("restore", dest, "--json", *other).json["restored"]
    assert_error(task2vec("restore", dest, *other), 1, "1 of tasks", "TASK2VEC_DATABASE_URL")
    assert task2vec("check", "--deep", "--json", *other).json["ok"]
    (tmp_path / "data" / "blobs" / archive.sha256[:2] / archive.sha256).unlink()
    lost = task2vec("backup", tmp_path / "late", *own)
    assert (lost.exit_code, archive.sha256 in lost.stdout.replace("\n", "")) == (1, True)


def test_tenants_are_listed_and_one_is_forgotten_where_that_is_meant(tmp_path: Path) -> None:
    own = ("--data-dir", tmp_path)
    database = Database(Settings(data_dir=tmp_path).store_url)
    database.migrate(shared_directory("migrations"))
    with database.session() as session:
        for tenant in ("acme", "local"):
            ready_task(session, make_embedding(0), tenant=tenant)
        asked_about = ready_task(session, make_embedding(1), tenant="local", name="for a day")
        asked_about.expires_at = datetime.now(UTC) + timedelta(days=1)
    database.dispose()
    listed = task2vec("tenants", "--json", *own).json["items"]
    assert [(each["tenant"], each["tasks"]) for each in listed] == [("acme", 1), ("local", 1)]
    assert task2vec("check", "--json", *own).stdout.count('"tasks": 2') == 1
    (space,) = task2vec("reindex", "--status", "--json", *own).json["spaces"]
    assert space["tasks"] == 2
    assert "acme" in task2vec("tenants", *own).stdout
    assert_error(task2vec("forget", "acme", *own), 1, "--yes")
    assert_error(task2vec("forget", "nobody", "--yes", *own), 1, "task2vec tenants")
    assert "Nothing of acme is left" in task2vec("forget", "acme", "--yes", *own).stdout
    [left] = task2vec("tenants", "--json", *own).json["items"]
    assert left["tenant"] == "local"


@pytest.mark.parametrize(
    "command",
    [
        *(["audit"], ["tenants"], ["forget", "acme", "--yes"], ["check"], ["reindex", "--status"]),
        *(["keys", "list"], ["keys", "rotate", "abcdef"], ["keys", "revoke", "abcdef"]),
        ["backup", "copies"],
    ],
)
def test_a_directory_without_data_stays_as_it_is(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "typo").mkdir()
    assert_error(task2vec(*command, "--data-dir", "typo"), 1, "No service has its data in", "typo")
    assert list((tmp_path / "typo").iterdir()) == []


def test_outcomes_are_shared_and_taken_back(server: str) -> None:
    at = ("--server", server)
    assert not task2vec("outcomes", "share", "--json", *at).json["share_outcomes"]
    assert "outcomes are shared" in task2vec("outcomes", "share", "--yes", *at).stdout
    assert task2vec("outcomes", "share", "--json", *at).json["share_outcomes"]
    assert "are not shared" in task2vec("outcomes", "share", "--no", *at).stdout


def test_the_atlas_shows_what_a_worker_drew(server: str, data_dir: Path, tmp_path: Path) -> None:
    assert_error(task2vec("atlas", "--server", server, "--space", "ffff"), 1, "No map")
    settings = Settings(data_dir=data_dir)
    database = Database(settings.store_url)
    refresh(database, FaissIndexes(tmp_path / "index"), threads=1, stop=lambda: False)
    database.dispose()
    answer = json.loads(task2vec("atlas", "--server", server, "--json").stdout)
    assert sorted(row["name"] for row in answer["items"]) == sorted(NAMES)
    assert answer["next_cursor"] is None
    told = task2vec("atlas", "--server", server)
    assert told.exit_code == 0
    assert f"{len(NAMES)} tasks on the map" in told.stdout
    drawn = task2vec("atlas", "--server", server, "--plot", tmp_path / "map.svg").stdout
    assert drawn == f"{told.stdout}\nThe picture: {tmp_path / 'map.svg'}\n"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outcomes") / "runs.csv"
    runs(12, 5).write_csv(path)
    return path


def evaluated(outcomes: Path, *options: str) -> Answer:
    return task2vec("estimator", "evaluate", "--outcomes", outcomes, *options)


def test_the_estimator_is_evaluated_on_a_table_of_outcomes(outcomes: Path) -> None:
    answer = json.loads(evaluated(outcomes, "--json").stdout)
    assert answer["weighted_tau"] > 0.5
    assert 0 <= answer["coverage90_worst_task"] <= answer["coverage90_mean"] <= 1
    assert answer["baselines"]["random"]["weighted_tau"] == 0
    assert set(answer["paired"]["weighted_tau"]) == {"baseline", "difference", "low", "high"}
    assert (answer["tasks"], answer["candidates"], answer["left_out"]) == (12, 5, [])


def test_of_a_table_that_tells_nothing_nothing_is_told(tmp_path: Path) -> None:
    table = tmp_path / "three.csv"
    table.write_text("task,model,metric,value\na,m,accuracy,0.5\nb,m,accuracy,0.6\n")
    told = task2vec("estimator", "evaluate", "--outcomes", table)
    assert (told.exit_code, told.stderr) == (0, "")
    assert "tells nothing of accuracy" in told.stdout
    assert "Order of candidates" not in told.stdout
    assert "may be chance" not in told.stdout


def test_an_evaluation_is_told_in_tables_and_words(outcomes: Path) -> None:
    found = evaluated(outcomes).stdout
    assert "5 candidates on 12 tasks" in found
    assert "this estimator" in found
    assert "90% intervals" in found
    assert "Time of a run" in found


def test_rows_that_cannot_be_are_named(outcomes: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.csv"
    lines = outcomes.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].replace("accuracy,0.", "accuracy,8.")
    spoilt.write_text("\n".join(lines), encoding="utf-8")
    found = evaluated(spoilt).stdout
    assert "row 3, value" in found
    assert "1 fault in rows left out: row 3, value" in found
    answer = json.loads(evaluated(spoilt, "--json").stdout)
    assert [(fault["row"], fault["column"]) for fault in answer["left_out"]] == [(3, "value")]


def test_of_many_rows_that_cannot_be_the_rest_is_counted(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    bad = [f"a,m{n},accuracy,8.5" for n in range(5)]
    good = ["a,m,accuracy,0.5", "b,m,accuracy,0.6"]
    table.write_text("\n".join(["task,model,metric,value", *bad, *good]))
    told = " ".join(evaluated(table).stdout.split())
    assert "5 faults in rows left out: row 1, value" in told
    assert "(write 85.3% as 0.853); and 2 more It tells nothing" in told


def test_a_table_without_outcomes_ends_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "colours.csv"
    path.write_text("colour\nblue\n", encoding="utf-8")
    assert_error(evaluated(path), 1, "The columns task, model, metric and value are missing.")


def recalibrate(data_dir: Path) -> None:
    """As a worker would."""
    database = Database(Settings(data_dir=data_dir).store_url)
    recalibration.refresh(database, Evidence.of([]))
    database.dispose()


def test_outcomes_are_imported_listed_and_released(
    server: str, data_dir: Path, tmp_path: Path
) -> None:
    task2vec_on = lambda *args: task2vec(*args, "--server", server, "--json")  # noqa: E731
    model = task2vec_on("candidates").json["items"][0]["name"]
    head = "task,model,metric,value,seconds,note"
    table = tmp_path / "runs.csv.gz"
    lines = [f"t{i},{model},accuracy,0.{50 + i},{60 + i},x" for i in range(12)]
    lines += [f"t,{model},accuracy,0.5,9000000,", f"t,{model},accuracy,50,60,"]
    table.write_bytes(gzip.compress("\n".join([head, *lines]).encode()))
    told = task2vec("outcomes", "import", table, "--server", server)
    assert (told.exit_code, told.stderr.count("\n")) == (1, 1)
    assert "1 row refused" in told.stderr
    assert "rows refused" in told.stdout
    assert "columns left alone  note" in told.stdout
    assert "write 85.3% as 0.853" in told.stdout
    again = json.loads(task2vec_on("outcomes", "import", table).stdout)
    assert (again["added"], again["already_there"], again["refused"]) == (0, 13, 1)
    assert "nothing was fitted yet" in task2vec("estimator", "show", "--server", server).stdout
    recalibrate(data_dir)
    shown = task2vec("estimator", "show", "--server", server).stdout
    assert "Version 1 of " in shown
    assert "12 outcomes of 1 candidate on 12 tasks" in shown
    assert "It tells nothing of accuracy: that takes several candidates" in " ".join(shown.split())
    assert "Order of candidates" not in shown
    estimates = task2vec("estimate", "birds", "--recipe", "full", "--server", server).stdout
    assert "Ranked by predicted accuracy" in estimates
    plan = task2vec("plan", "birds", "--target", 0.999, "--server", server).stdout
    assert "Nothing here will reach 99.9%" in plan
    assert "Plan for birds" in plan
    table.write_bytes(table.read_bytes()[:-20])
    asked = task2vec("outcomes", "import", table, "--server", server)
    assert_error(asked, 1, "runs.csv.gz is not what gzip makes, or not all of it")
    assert task2vec_on("plan", "birds", "--tries", 1).json["verdict"] == "no_target"
    assert re.search(r"5\d% \d+-\d+", estimates)
    (held,) = task2vec_on("outcomes", "list", "--quarantined").json["items"]
    assert re.search(r" far +\n", task2vec("outcomes", "list", "--server", server).stdout)
    assert task2vec_on("outcomes", "release", held["id"]).json["quarantine"] is None
    assert task2vec_on("outcomes", "list", "--quarantined").json["items"] == []
    assert_error(
        task2vec("outcomes", "release", "0" * 32, "--server", server), 1, "There is no outcome"
    )
