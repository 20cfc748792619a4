"""How a browser bears a map of many tasks: until it is drawn, and a step of the wheel.

    python -m benchmarks.atlas_page [--tasks 100000] [--picture FILE.png]

The atlas's own page, of a service of its own, in Chromium (apt-get install chromium, or
TEST_CHROMIUM=PATH) without a GPU. Points are made up: those of the reference library, many times
and scattered, in pages as the service gives them. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from playwright.sync_api import Browser, Page, Route, sync_playwright
from rich.console import Console

from app.demo import running_service

A_PAGE = 10_000
SPREAD = 0.3
STEPS = 20
SOUGHT = "digits"
DRAWN_WITHIN_SECONDS = 120
CHART = "echarts.getInstanceByDom(document.querySelector('[data-chart=atlas]'))"
FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
POINTS = (
    f"{CHART}.getOption().series.reduce((n, each) => n + (each.name ? each.data.length : 0), 0)"
)

# A step of the wheel, until the frame after the one that draws it.
WHEEL = f"""
(share) => new Promise((done) => {{
  const began = performance.now();
  {CHART}.dispatchAction({{ type: "dataZoom", batch: [0, 1].map((dataZoomIndex) => (
    {{ dataZoomIndex, start: 50 * share, end: 100 - 50 * share }})) }});
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
}})
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--picture", type=Path, help="what the page looks like in the end")
    asked = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder), Console(stderr=True)) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("TEST_CHROMIUM") or shutil.which("chromium"),
            args=["--no-sandbox"],
        )
        told = measure(browser, url, made_up(drawn(url), asked.tasks), asked.picture)
        browser.close()
    print(json.dumps({"tasks": asked.tasks, **told}))


def drawn(url: str) -> dict[str, Any]:
    """The library's map, once the worker has drawn it."""
    for _ in range(DRAWN_WITHIN_SECONDS):
        answer = httpx.get(f"{url}/v1/atlas", params={"limit": A_PAGE}, trust_env=False)
        if answer.status_code == 200 and answer.json()["items"]:
            found: dict[str, Any] = answer.json()
            return found
        time.sleep(1)
    raise SystemExit("The worker drew no map.")


def made_up(atlas: dict[str, Any], tasks: int) -> dict[str, Any]:
    random_ = random.Random(0)
    items = [
        point
        | {
            "id": f"{number:032x}",
            "x": point["x"] + random_.gauss(0, SPREAD),
            "y": point["y"] + random_.gauss(0, SPREAD),
            "complexity": point["complexity"] * random_.lognormvariate(0, 1),
        }
        for number, point in zip(range(tasks), repeated(atlas["items"]), strict=False)
    ]
    return atlas | {"items": items, "tasks": tasks}


def repeated(items: list[dict[str, Any]]) -> Any:
    while True:
        yield from items


def measure(
    browser: Browser, url: str, atlas: dict[str, Any], picture: Path | None
) -> dict[str, float]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.route("**/v1/atlas?*", lambda route: answer(route, atlas))
    began = time.monotonic()
    page.goto(f"{url}/atlas")
    said = f"{atlas['tasks']} of {atlas['tasks']} tasks."
    page.get_by_text(said).wait_for(timeout=1000 * DRAWN_WITHIN_SECONDS)
    page.evaluate(FRAME)
    seconds = time.monotonic() - began
    points = page.evaluate(POINTS)
    if points != atlas["tasks"]:
        raise SystemExit(f"{points} of {atlas['tasks']} tasks are on the map.")
    found = find(page, atlas)
    steps = [page.evaluate(WHEEL, step / (STEPS + 2)) for step in range(STEPS)]
    if picture is not None:
        page.evaluate(WHEEL, 0)
        page.screenshot(path=picture)
    page.close()
    told = {"drawn_seconds": seconds, "found_ms": found, "wheel_ms": statistics.median(steps)}
    for name, value in told.items():
        print(f"{name:<16} {value:8.1f}")
    return told | {"wheel_most_ms": max(steps)}


def find(page: Page, atlas: dict[str, Any]) -> float:
    """Milliseconds from a name that is typed to what is found of it."""
    sought = [
        each
        for each in atlas["items"]
        if any(SOUGHT in text.lower() for text in (each["name"], *each["tags"]))
    ]
    began = time.monotonic()
    page.fill("#find", SOUGHT)
    page.get_by_text(f"{len(sought)} found.").wait_for()
    passed = time.monotonic() - began
    page.fill("#find", "")
    page.locator("#found").wait_for(state="hidden")
    page.evaluate(FRAME)
    return 1000 * passed


def answer(route: Route, atlas: dict[str, Any]) -> None:
    cursor = int(parse_qs(urlsplit(route.request.url).query).get("cursor", ["0"])[0])
    end = cursor + A_PAGE
    part = {"items": atlas["items"][cursor:end], "next_cursor": None}
    if end < len(atlas["items"]):
        part["next_cursor"] = str(end)
    route.fulfill(json=atlas | part)


if __name__ == "__main__":
    main()
