"""Draws pages.png: a task, what to start from, and the atlas, as Chromium shows them.

python docs/photograph.py

A service of its own embeds the demonstration's tasks first (a minute and a half); needs Chromium
(apt-get install chromium).
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright
from rich.console import Console

from app.client import Client
from app.demo import running_service, write_archives

HERE = Path(__file__).resolve().parent
SEEN = ViewportSize(width=1000, height=820)
WIDTH, HEIGHT, GAP = 600, 492, 12
PATIENCE_MS = 180_000
PAGES = ("/tasks/{task}", "/tasks/{task}/estimates?target_percent=90", "/atlas")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        archives = write_archives(Path(folder))
        with running_service(Path(folder, "data"), Console(stderr=True)) as url, Client(url) as own:
            sent = [own.upload("/v1/tasks", each, {"tags": ["demo"]}) for each in archives]
            for each in sent:
                list(own.follow(each["job_id"]))
            chromium = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport=SEEN, base_url=url)
            shots = [shot(page, path.format(task=sent[0]["id"])) for path in PAGES]
            browser.close()
    whole = Image.new("RGB", (len(shots) * (WIDTH + GAP) - GAP, HEIGHT), "white")
    for place, taken in enumerate(shots):
        whole.paste(taken, (place * (WIDTH + GAP), 0))
    whole.save(HERE / "pages.png", optimize=True)


def shot(page: Page, path: str) -> Image.Image:
    page.goto(path)
    while "No map was drawn yet" in page.content():
        page.wait_for_timeout(500)
        page.reload()
    page.wait_for_load_state("networkidle", timeout=PATIENCE_MS)
    page.wait_for_timeout(1000)  # until charts are drawn
    with Image.open(io.BytesIO(page.screenshot())) as taken:
        return taken.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
