"""The main job on four real image sets, through a service of its own that ends with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console

from app import terminal
from app.client import Client, Json
from app.errors import Conflict, Unavailable
from app.folder import ZippedFolder

Pixels = npt.NDArray[np.uint8]

READY_WITHIN_SECONDS = 300.0
STOP_WITHIN_SECONDS = 30.0
IMAGES_PER_DIGIT = 30
PATCH_PIXELS = 48
# Where to compute is this machine's matter; every other setting is the demo's own.
KEPT_SETTINGS = ("TASK2VEC_DEVICE", "TASK2VEC_THREADS", "TASK2VEC_MODELS_DIR", "TASK2VEC_PROBE")


def run_demo(data_dir: Path | None, console: Console, record: Path | None) -> Json:
    """Everything it showed, for programs; `record` also gets it as an SVG picture."""
    if record is not None:
        console = Console(record=True, width=96, highlight=False)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="task2vec-demo-")))
        archives = write_archives(folder)
        url = stack.enter_context(running_service(data_dir or folder / "data", console))
        client = stack.enter_context(Client(url))
        tasks = _embed(client, archives, console)
        neighbours = [client.get(f"/v1/tasks/{task['id']}/neighbours", k=5) for task in tasks]
        for task, answer in zip(tasks, neighbours, strict=True):
            console.print()
            console.print(terminal.neighbours_table(answer, f"Nearest to {task['name']}"))
        console.print()
        asked = tasks[0]
        estimates = client.get(f"/v1/tasks/{asked['id']}/estimates", k=8)
        console.print(terminal.estimates_table(estimates, f"Candidates for {asked['name']}"))
    console.print("\nThe service has stopped. `make serve` leaves one running.")
    if record is not None:
        record.write_text(terminal.picture(console, "make demo"), encoding="utf-8")
    return {"tasks": tasks, "neighbours": neighbours, "estimates": estimates}


def _embed(client: Client, archives: list[Path], console: Console) -> list[Json]:
    with terminal.progress_bars() as bars:
        accepted = [client.upload("/v1/tasks", archive, {"tags": ["demo"]}) for archive in archives]
        rows = [bars.add_task(archive.stem, phase="queued", total=None) for archive in archives]
        for row, archive, task in zip(rows, archives, accepted, strict=True):
            if not terminal.err.is_terminal:
                terminal.tell_phases(archive.stem, client.follow(task["job_id"]))
            for progress in client.follow(task["job_id"]):
                terminal.show_progress(bars, row, progress)
    console.print(bars.make_tasks_table(bars.tasks))
    tasks = [client.get(f"/v1/tasks/{task['id']}") for task in accepted]
    for task in tasks:
        if task["status"] != "ready":
            problem = task["problem"] or {}
            raise Conflict(
                f"task-{task['status']}",
                f"{task['name']} is {task['status']}: {problem.get('detail')}",
                str(problem.get("remedy", "")),
            )
    return tasks


# --- the service


@contextmanager
def running_service(data_dir: Path, console: Console) -> Iterator[str]:
    """The address of a service on a free loopback port, ready to embed; stopped at the end."""
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "service.log"
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TASK2VEC_") or name in KEPT_SETTINGS
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with log.open("ab") as log_file:
        command = [sys.executable, "-m", "app.cli", "serve", "--host", "127.0.0.1", "--port", "0"]
        process = subprocess.Popen(  # noqa: S603
            [*command, "--data-dir", str(data_dir), "--json"],
            stdout=subprocess.PIPE,
            stderr=log_file,
            env=environment,
        )
    with process:
        try:
            started = time.monotonic()
            url = _listening_url(process, log)
            with console.status("Starting the service ...") as status:
                while reasons := _what_is_missing(url, process, log):
                    if time.monotonic() - started > READY_WITHIN_SECONDS:
                        raise _not_ready(log, f"It is still waiting: {'; '.join(reasons)}")
                    status.update(f"Warming up: {'; '.join(reasons)}")
                    time.sleep(0.3)
            console.print(
                f"The service is ready after {time.monotonic() - started:.0f} s at {url}.\n"
            )
            yield url
        finally:
            _stop(process)


def _listening_url(process: subprocess.Popen[bytes], log: Path) -> str:
    line = process.stdout.readline() if process.stdout else b""
    if not line:
        process.wait()
        raise _not_ready(log, "It ended at once")
    return str(json.loads(line)["url"])


def _what_is_missing(url: str, process: subprocess.Popen[bytes], log: Path) -> list[str]:
    if process.poll() is not None:
        raise _not_ready(log, f"It ended with exit code {process.returncode}")
    try:
        answer = httpx.get(f"{url}/readyz", timeout=10, trust_env=False).json()
    except httpx.TransportError:
        return ["the API is starting"]
    return [] if answer.get("ready") else list(answer.get("reasons") or ["not ready yet"])


def _not_ready(log: Path, what: str) -> Unavailable:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = f" Its last words: {lines[-1]}" if lines else ""
    return Unavailable(
        "service-not-ready", f"The service did not come up. {what}.{last}", f"See {log}."
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


# --- the image sets


def write_archives(folder: Path) -> list[Path]:
    """Four labelled image sets as zip archives: digits, and patches of two photographs."""
    from sklearn.datasets import load_digits, load_sample_image

    digits: Any = load_digits()
    temple, flower = (load_sample_image(f"{name}.jpg") for name in ("china", "flower"))
    by_digit = {
        digit: [
            _enlarged(image) for image in digits.images[digits.target == digit][:IMAGES_PER_DIGIT]
        ]
        for digit in range(10)
    }
    patches = {"temple": _patches(temple)[::2], "flower": _patches(flower)[::2]}
    rows = np.array_split(temple, 3)
    height = {
        name: _patches(row) for name, row in zip(("top", "middle", "bottom"), rows, strict=True)
    }
    sets: list[tuple[str, dict[str, list[Pixels]], str]] = [
        ("digits-0-to-4", {str(digit): by_digit[digit] for digit in range(5)}, "png"),
        ("digits-5-to-9", {str(digit): by_digit[digit] for digit in range(5, 10)}, "png"),
        ("temple-or-flower", patches, "jpg"),
        ("height-in-the-temple", height, "jpg"),
    ]
    return [_write_archive(folder, name, images, suffix) for name, images, suffix in sets]


def _write_archive(folder: Path, name: str, images: dict[str, list[Pixels]], suffix: str) -> Path:
    for label, group in images.items():
        (folder / name / label).mkdir(parents=True)
        for index, pixels in enumerate(group):
            path = folder / name / label / f"{index:03}.{suffix}"
            Image.fromarray(pixels).save(path, quality=92)
    archive = folder / f"{name}.zip"
    with ZippedFolder(folder / name) as zipped, archive.open("wb") as file:
        for piece in iter(lambda: zipped.read(1 << 20), b""):
            file.write(piece or b"")
    return archive


def _enlarged(digit: npt.NDArray[np.float64]) -> Pixels:
    """An 8 x 8 digit of 17 greys as 64 x 64 pixels."""
    grey = Image.fromarray((digit * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((64, 64), Image.Resampling.BICUBIC))


def _patches(photograph: Pixels) -> list[Pixels]:
    """Squares that do not overlap, row by row."""
    height, width = photograph.shape[:2]
    return [
        photograph[top : top + PATCH_PIXELS, left : left + PATCH_PIXELS]
        for top in range(0, height - PATCH_PIXELS + 1, PATCH_PIXELS)
        for left in range(0, width - PATCH_PIXELS + 1, PATCH_PIXELS)
    ]
