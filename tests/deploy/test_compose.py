"""The compose files, as Compose itself reads them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
import typer.main

from app.cli import app as cli
from app.settings import Settings
from tests.deploy.test_image import STAGES
from tests.engines import s3_server

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
ONE, TEAM = "compose.yaml", "compose.team.yaml"
ASKED_FOR = ("POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "GRAFANA_PASSWORD")
OURS = re.compile(r"task2vec-(api|worker)")


def compose(file: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Without the caller's own settings."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("TASK2VEC_")
    }
    return subprocess.run(
        [Path(sys.executable).with_name("docker-compose"), "--file", DEPLOY / file, *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module", params=[ONE, TEAM])
def services(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def read(file: str) -> dict[str, Any]:
    """Every service, of whatever profile, with all that is inherited."""
    ran = compose(
        file,
        *("--profile", "*", "config", "--format", "json"),
        **{name: f"their-{name.lower()}" for name in ASKED_FOR},
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)["services"]
    return found


def ours(services: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in services.items() if OURS.fullmatch(each["image"])}


@pytest.mark.parametrize("name", ASKED_FOR)
def test_a_secret_that_is_missing_is_asked_for(name: str) -> None:
    others = {other: "x" for other in ASKED_FOR if other != name}
    ran = compose(TEAM, "config", "--quiet", **others)
    assert ran.returncode != 0
    assert name in ran.stderr
    assert "deploy/.env" in ran.stderr


def test_every_setting_that_is_set_is_one(services: dict[str, Any]) -> None:
    known = {f"TASK2VEC_{name.upper()}" for name in Settings.model_fields}
    assert ours(services)
    for each in ours(services).values():
        named = {name for name in each["environment"] if name.startswith("TASK2VEC_")}
        assert named <= known


def test_settings_are_such_that_the_service_takes_them(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ours(services).values():
        with monkeypatch.context() as patch:
            for name, value in each["environment"].items():
                patch.setenv(name, value)
            Settings()


def test_our_images_are_built_from_stages_that_there_are(services: dict[str, Any]) -> None:
    for each in ours(services).values():
        assert each["build"]["target"] in STAGES
        assert each["image"] == f"task2vec-{each['build']['target']}"
        assert (Path(each["build"]["context"]) / "Dockerfile").exists()


def test_our_containers_may_nothing_and_write_to_volumes_only(services: dict[str, Any]) -> None:
    for each in ours(services).values():
        assert each["read_only"]
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]
        assert {volume["target"] for volume in each["volumes"]} == {"/data", "/tmp"}


def test_what_is_started_is_a_command(services: dict[str, Any]) -> None:
    commands = typer.main.get_command(cli).commands  # type: ignore[attr-defined]
    for name, each in ours(services).items():
        if name != "bucket" and each["command"]:
            assert each["command"][0] in commands


def test_other_images_are_of_one_release(services: dict[str, Any]) -> None:
    for each in services.values():
        if not OURS.fullmatch(each["image"]):
            assert re.search(r":v?\d+\.\d+", each["image"]), each["image"]


def test_files_that_are_mounted_are_there(services: dict[str, Any]) -> None:
    for each in services.values():
        for volume in each.get("volumes", ()):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists()
                assert volume["read_only"]


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]) -> None:
    published = [port for each in services.values() for port in each.get("ports", ())]
    assert published
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_processes_are_given_longer_than_they_take_to_leave(services: dict[str, Any]) -> None:
    for each in ours(services).values():
        if each["command"] in (["serve"], ["worker"]):
            grace = float(each["environment"].get("TASK2VEC_SHUTDOWN_GRACE_SECONDS", 10))
            assert float(each["stop_grace_period"].rstrip("s")) >= grace + 10


def test_a_team_has_two_apis_and_a_worker_for_whatever_it_computes_on() -> None:
    services = read(TEAM)
    assert services["api"]["deploy"]["replicas"] == 2
    gpu, cpu = services["worker-gpu"], services["worker-cpu"]
    assert (gpu["profiles"], cpu["profiles"]) == (["gpu"], ["cpu"])
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["device_ids"] == ["0"]
    assert gpu["environment"]["TASK2VEC_DEVICE"] == "cuda:0"
    of = {
        volume["source"] for each in (gpu, cpu) for volume in each["volumes"] if "source" in volume
    }
    assert len(of) == 2  # a data directory has one worker


def test_the_bucket_is_made_once_and_left_alone_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the very command of the file, on a real S3 server that has a bucket of other tests, too."""
    python, option, command = read(TEAM)["bucket"]["entrypoint"]
    assert (python, option) == ("python", "-c")
    arguments = [option, command.replace('"task2vec"', '"bucket-of-a-team"')]
    with s3_server() as (_, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        subprocess.run([sys.executable, *arguments], check=True)
        client.put_object(Bucket="bucket-of-a-team", Key="kept", Body=b"")
        subprocess.run([sys.executable, *arguments], check=True)
        assert client.list_objects_v2(Bucket="bucket-of-a-team")["KeyCount"] == 1
        client.close()


@pytest.mark.skipif(
    shutil.which("caddy") is None, reason="caddy is in Debian's package of that name"
)
def test_caddy_takes_its_configuration(tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            "caddy",
            "adapt",
            "--config",
            DEPLOY / "Caddyfile",
            "--adapter",
            "caddyfile",
            "--validate",
        ],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    adapted = json.loads(ran.stdout)
    assert json.dumps(adapted).count("reverse_proxy") == 1
