"""The whole service, worker included, and a real Chromium before it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, sync_playwright

from tests.images import labelled_files

PATIENCE_MS = 180_000


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    chromium = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium, or TEST_CHROMIUM=PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def served(data: Path, *options: str, **settings: str) -> Iterator[str]:
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--json", *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TASK2VEC_DATA_DIR": str(data), **settings},
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="package")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = {"TASK2VEC_ATLAS_INTERVAL_SECONDS": "0.5", "TASK2VEC_THREADS": "1"}
    with served(tmp_path_factory.mktemp("data"), **settings) as url:
        yield url


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A service that asks for keys, and one that opens it."""
    command = [sys.executable, "-m", "app.cli", "keys", "create", "browser", "--json"]
    where = ["--tenant", "acme", "--data-dir", str(tmp_path)]
    told = subprocess.run([*command, *where], stdout=subprocess.PIPE, check=True)
    with served(tmp_path, "--no-worker", TASK2VEC_AUTH="required") as url:
        yield url, json.loads(told.stdout)["secret"]


def is_wrong(told: ConsoleMessage) -> bool:
    """What a script asks for may be refused, and the console says so by itself."""
    asked = told.text.startswith("Failed to load resource")
    return told.type in ("error", "warning") and not asked


def is_missing(answer: Response) -> bool:
    asked = answer.request.resource_type in ("fetch", "xhr") or answer.url.endswith("/unheard-of")
    return answer.status >= 400 and not asked


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Whatever goes wrong in a script fails the test."""
    context = browser.new_context(base_url=address)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if is_wrong(told) else None)
    page.on("response", lambda answer: wrong.append(answer.url) if is_missing(answer) else None)
    yield page
    context.close()
    assert wrong == []


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of drawings, one of them twice, and a file that is no image."""
    root = tmp_path_factory.mktemp("sets") / "shapes"
    for path, data in labelled_files(2, 6).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    (root / "circle" / "again.png").write_bytes(next(root.glob("circle/*.png")).read_bytes())
    (root / "circle" / "broken.png").write_bytes(b"no image at all")
    return root


@pytest.fixture(scope="package")
def task(browser: Browser, address: str, folder: Path) -> str:
    """The address of a task's page, once it is embedded: sent as a person does it."""
    context = browser.new_context(base_url=address)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto("/")
    page.set_input_files("#folder", folder)
    page.wait_for_url("**/tasks/*")
    page.get_by_text("✓ ready").wait_for()
    found = page.url
    context.close()
    return found
