"""The Dockerfile: read by quick tests, and built and run for real by a slow one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from fnmatch import fnmatch
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.cli import app as cli

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = ROOT / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
PORT = 18_427
FOR_REAL = ("buildah", "debootstrap", "unshare", "chroot")
SHELL = """
image=$1; data=$2; tmp=$3; shift 3
mount --bind "$image" "$image"; mount -o remount,ro,bind "$image"
mount --bind "$data" "$image/data"; mount --bind "$tmp" "$image/tmp"
mount -t proc proc "$image/proc"; mount --rbind /dev "$image/dev"
exec chroot --userspec=10001:10001 "$image" "$@"
"""


def stages() -> dict[str, list[dict[str, Any]]]:
    """Instructions by stage, the names being those that it is built by."""
    found: dict[str, list[dict[str, Any]]] = {"": []}
    name = ""
    for each in DockerfileParser(fileobj=BytesIO(FILE.read_bytes())).structure:
        if each["instruction"] == "FROM":
            name = each["value"].rpartition(" AS ")[2]
            found[name] = []
        found[name].append(each)
    return found


STAGES = stages()


def values(stage: str, instruction: str) -> list[str]:
    return [each["value"] for each in STAGES[stage] if each["instruction"] == instruction]


def installed(stage: str) -> list[str]:
    (extras,) = re.findall(r'"\.\[([a-z0-9,]+)\]"', " ".join(values(stage, "RUN")))
    names: list[str] = extras.split(",")
    return names


def requirements(extras: list[str]) -> set[str]:
    asked = [
        *PROJECT["project"]["dependencies"],
        *(each for name in extras for each in EXTRAS[name]),
    ]
    return {canonicalize_name(Requirement(each).name) for each in asked}


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    ran = subprocess.run([hadolint, FILE], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


def test_there_are_two_images_to_build() -> None:
    assert {"api", "worker"} <= set(STAGES)
    assert list(STAGES)[-1] == "worker"  # what is built where no target is named


def test_the_base_is_one_release() -> None:
    (base,) = values("", "ARG")
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-[a-z]+", base)
    assert [values(name, "FROM")[0] for name in ("build", "runtime")] == [
        "${BASE} AS build",
        "${BASE} AS runtime",
    ]


def test_whatever_is_copied_is_there_and_not_left_out() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    left_out = [line for line in ignored if not line.startswith("!") and line != "*"]
    assert ignored[0] == "*"
    copied = {
        source
        for name in STAGES
        for value in values(name, "COPY")
        if not value.startswith("--from")
        for source in value.split()[:-1]
    }
    assert copied == sent
    for source in copied:
        assert (ROOT / source).exists()
        assert not any(fnmatch(source, pattern.removeprefix("**/")) for pattern in left_out)


@pytest.mark.parametrize(("stage", "source"), [("api", "build-api"), ("worker", "build-worker")])
def test_an_image_takes_the_environment_alone_from_what_built_it(stage: str, source: str) -> None:
    assert values(stage, "FROM") == [f"runtime AS {stage}"]
    assert values(stage, "COPY") == [f"--from={source} /opt/task2vec /opt/task2vec"]
    assert not values(stage, "RUN")


def test_nobody_runs_it_who_may_anything() -> None:
    assert values("runtime", "USER") == ["10001:10001"]
    assert not any(values(stage, "USER") for stage in ("api", "worker"))
    assert json.loads(values("runtime", "VOLUME")[0]) == ["/data", "/tmp"]


def test_what_is_started_is_a_command_with_such_options() -> None:
    (entry,) = json.loads(values("runtime", "ENTRYPOINT")[0])
    assert entry in PROJECT["project"]["scripts"]
    commands = typer.main.get_command(cli).commands  # type: ignore[attr-defined]
    for stage in ("api", "worker"):
        name, *options = json.loads(values(stage, "CMD")[0])
        known = {
            option
            for parameter in commands[name].params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert set(options) <= known
        assert values(stage, "HEALTHCHECK")


def test_the_api_installs_no_torch_and_the_worker_does() -> None:
    heavy = {"torch", "torchvision", "timm", "dbos", "scikit-learn"}
    assert not requirements(installed("build-api")) & heavy
    assert heavy <= requirements(installed("build-worker"))


@pytest.mark.parametrize("stage", ["build-api", "build-worker"])
def test_everything_that_is_installed_is_pinned(stage: str) -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in pins}
    assert requirements(installed(stage)) <= pinned
    assert "-c constraints.txt" in " ".join(values(stage, "RUN"))


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(name) for name in FOR_REAL),
    reason=f"needs root and {', '.join(FOR_REAL)}",
)
def test_the_api_image_builds_and_serves_with_nothing_to_write_but_its_volumes(
    tmp_path: Path,
) -> None:
    storage = ["--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run")]

    def buildah(*arguments: str) -> str:
        return subprocess.run(
            ["buildah", *storage, *arguments],
            cwd=ROOT,
            env=os.environ | {"BUILDAH_ISOLATION": "chroot"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()

    base = buildah("from", "scratch")
    place = buildah("mount", base)
    python = "python3,python3-venv,ca-certificates"
    bootstrap = ["debootstrap", "--variant=minbase", f"--include={python}", "bookworm", place]
    subprocess.run(bootstrap, check=True, stdout=subprocess.DEVNULL)
    (Path(place) / "usr" / "bin" / "python").symlink_to("python3")
    buildah("config", "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", base)
    buildah("commit", base, "localhost/python:bookworm")

    try:
        asked = ["--target", "api", "--build-arg", "BASE=localhost/python:bookworm"]
        volumes = [f"--volume={path}:{path}:ro" for path in _what_pip_reads()]
        buildah("build", "--format=docker", "--tag=api", *asked, *volumes, ".")
        told = json.loads(buildah("inspect", "--type=image", "api"))["Docker"]["config"]
        assert told["User"] == "10001:10001"
        assert told["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
        assert "healthz" in " ".join(told["Healthcheck"]["Test"])
        image = buildah("mount", buildah("from", "localhost/api"))
        packages = Path(image) / "opt" / "task2vec" / "lib" / "python3.11" / "site-packages"
        assert (packages / "fastapi").is_dir()
        for name in ("torch", "timm", "dbos", "pip", "setuptools"):
            assert not (packages / name).exists()
        for name in ("gcc", "cc", "make"):
            assert shutil.which(name, path=f"{image}/usr/bin:{image}/bin") is None
        _serve_and_ask(image, told["Env"], tmp_path)
    finally:
        buildah("rm", "--all")
        buildah("rmi", "--all", "--force")


def _serve_and_ask(image: str, environment: list[str], tmp_path: Path) -> None:
    data, tmp = tmp_path / "data", tmp_path / "tmp"
    for directory in (data, tmp):
        directory.mkdir()
        os.chown(directory, 10001, 10001)
    env = dict(each.split("=", 1) for each in environment) | {"TASK2VEC_PORT": str(PORT)}
    env["PATH"] += ":/usr/sbin:/sbin"
    inside = ["unshare", "--mount", "--propagation=private", "sh", "-ec", SHELL, "sh"]
    inside += [image, str(data), str(tmp)]

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*inside, *command], env=env, capture_output=True, text=True, check=False
        )

    assert "Read-only" in run("touch", "/opt/task2vec/x").stderr
    refused = run("task2vec", "serve", "--no-worker")
    assert "keys create" in refused.stderr
    made = run("task2vec", "keys", "create", "me")
    assert made.returncode == 0, made.stderr
    with subprocess.Popen([*inside, "task2vec", "serve", "--no-worker"], env=env) as process:
        try:
            give_up_at = time.monotonic() + 120
            while not _answers():
                assert process.poll() is None
                assert time.monotonic() < give_up_at
                time.sleep(0.5)
            answer = httpx.get(
                f"http://127.0.0.1:{PORT}/v1/tasks?library=true",
                headers={"Authorization": f"Bearer {made.stdout.strip()}"},
            )
            assert len(answer.json()["items"]) > 10
        finally:
            process.terminate()
    assert process.returncode == 0


def _answers() -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{PORT}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def _what_pip_reads() -> list[str]:
    """Files of this machine's that its pip is told of, and the like of the image's is not."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    named = re.findall(r"(?:file://)?(/[\w./-]+)", listed)
    return [path for path in ("/etc/pip.conf", *dict.fromkeys(named)) if Path(path).exists()]
