from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from benchmarks.atlas_page import drawn, made_up, measure
from tests.images import labelled_zip, make_zip

# Whatever is said to somebody who cannot see a page, on this one and the next.
TELLING = """
const told = JSON.parse(sessionStorage.said ?? "[]");
new MutationObserver((changes) => {
  for (const { target } of changes) {
    const status = (target.closest ? target : target.parentElement)?.closest("[role=status]");
    if (status && told.at(-1) !== status.textContent) told.push(status.textContent);
  }
  sessionStorage.said = JSON.stringify(told);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""

PHASES = (
    "Reading the images",
    "Looking at the images",
    "Fitting the classifier",
    "Measuring the information",
)

CHART = "echarts.getInstanceByDom(document.querySelector('[data-chart=atlas]'))"

# Where the point is that is farthest from all others, whose it is, and its name.
ALONE = f"""
(() => {{
  const points = {CHART}.getOption().series.flatMap((each) => each.name ? each.data : []);
  const at = points.map(([x, y]) => {CHART}.convertToPixel({{ xAxisIndex: 0, yAxisIndex: 0 }}, [x, y]));
  const room = at.map(([x, y], i) => Math.min(...at.map(([p, q], j) => i === j ? 1e9 : Math.hypot(x - p, y - q))));
  const best = room.indexOf(Math.max(...room));
  return [...at[best], points[best][2], points[best][3]];
}})()
"""

PAGES = ("/", "{task}", "{task}/estimates?target_percent=90", "{task}/runs", "/atlas", "/estimator")
OTHER_PAGES = (
    "/?library=true",
    "/compare?task={id}&task={other}",
    "/jobs",
    "/operation",
    "/runs/{run}",
    "/tasks/{refused}",
    "/tasks/unheard-of",
)


def addresses(page: Page, task: str) -> list[str]:
    page.goto("/?library=true")
    link = page.locator("tbody th a").first.get_attribute("href")
    assert link is not None
    names = {"task": task, "id": task.rpartition("/")[2], "other": link.rpartition("/")[2]}
    asked = {"candidate": "tf_efficientnet_lite0.in1k", "recipe": "head_only"}
    run = page.request.post(f"/v1/tasks/{names['id']}/finetunes", data=asked).json()
    page.request.delete(f"/v1/jobs/{run['job_id']}")
    nothing = make_zip({"a/1.png": b"no image", "b/1.png": b"no image"})
    file = {"name": "nothing.zip", "mimeType": "application/zip", "buffer": nothing}
    sent = page.request.post("/v1/tasks", multipart={"metadata": "{}", "archive": file}).json()
    page.goto(f"/tasks/{sent['id']}")
    page.get_by_text("refused").first.wait_for()
    names |= {"run": run["id"], "refused": sent["id"]}
    return [address.format(**names) for address in (*PAGES, *OTHER_PAGES)]


def test_a_folder_is_packed_sent_followed_and_shown_with_its_classes(page: Page, task: str) -> None:
    page.goto(task)
    expect(page.get_by_role("heading", level=1)).to_have_text("shapes")
    expect(page.get_by_text("12", exact=True).first).to_be_visible()
    strip = page.get_by_alt_text("Some images of circle")
    strip.scroll_into_view_if_needed()
    expect(strip).to_have_js_property("complete", True)
    assert strip.evaluate("image => image.naturalWidth") == 6 * 56
    refused = page.locator("[data-path]")
    expect(refused).to_contain_text(["circle/again.png", "circle/broken.png"])


def test_an_archive_is_sent_under_the_name_asked_for(page: Page, tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    archive.write_bytes(labelled_zip(2, 3))
    page.goto("/")
    page.fill("#name", "from an archive")
    page.set_input_files("#archive", archive)
    page.wait_for_url("**/tasks/*")
    page.get_by_text("✓ ready").wait_for()
    expect(page.get_by_role("heading", level=1)).to_have_text("from an archive")


def test_what_is_dropped_is_told_of_step_by_step_and_shown_where_it_was_left_out(
    page: Page, folder: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "shapes.zip"
    with ZipFile(archive, "w", ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*.png")):
            packed.write(path, path.relative_to(folder))
    page.add_init_script(TELLING)
    for dropped, first in ((folder, "Packing 1 of 14 files."), (archive, "Sending.")):
        page.goto("/")
        page.evaluate("sessionStorage.clear()")
        drop(page, dropped)
        page.wait_for_url("**/tasks/*")
        page.get_by_text("✓ ready").wait_for()
        said = page.evaluate("JSON.parse(sessionStorage.said)")
        steps = [first, "Sent; the archive is being checked.", "Waiting for a worker."]
        assert [each for each in dict.fromkeys(said) if each in steps] == steps, said
        assert any(each.startswith(PHASES) for each in said), said
        expect(page.locator("[data-path='circle/again.png'] img")).to_have_js_property(
            "naturalWidth", 64
        )
        expect(page.locator("[data-path='circle/broken.png'] img")).to_have_count(0)


def drop(page: Page, path: Path) -> None:
    """A file or a folder of this disk, as a person does it."""
    box = page.locator("#upload").bounding_box()
    assert box is not None
    place = {"x": box["x"] + 20, "y": box["y"] + 20}
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    mouse = page.context.new_cdp_session(page)
    for step in ("dragEnter", "dragOver", "drop"):
        mouse.send("Input.dispatchDragEvent", {"type": step, "data": data, **place})


def test_what_is_no_archive_is_refused_where_it_was_dropped(page: Page, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.zip"
    nothing.write_bytes(b"no archive")
    page.goto("/")
    with page.expect_response("**/v1/tasks"):
        page.set_input_files("#archive", nothing)
    problem = page.locator("#upload-problem")
    expect(problem).to_be_visible()
    expect(problem).to_contain_text("zip")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_the_rules_of_accessibility(page: Page, task: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    for address in addresses(page, task):
        page.goto(address)
        page.wait_for_load_state("networkidle")
        found = Axe().run(page)
        assert found.violations_count == 0, f"{address}: {found.generate_report()}"


def test_no_page_is_wider_than_a_phone(page: Page, task: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    for address in addresses(page, task):
        page.goto(address)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, (address, width)


def test_the_first_key_leads_past_the_navigation(page: Page, task: str) -> None:
    page.goto(task)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    assert page.url.endswith("#content")


def test_the_atlas_draws_its_points_finds_names_and_leads_to_a_task(page: Page, task: str) -> None:
    page.goto("/atlas")
    while "No map was drawn yet" in page.content():  # the worker draws within a second
        page.wait_for_timeout(500)
        page.reload()
    expect(page.locator("#atlas-says")).to_contain_text("tasks.")
    drawn = page.evaluate(
        "echarts.getInstanceByDom(document.querySelector('[data-chart=atlas]'))"
        ".getOption().series.reduce((n, each) => n + each.data.length, 0)"
    )
    assert drawn > 100
    page.fill("#find", "digits")
    first = page.locator("#found-list a").first
    expect(first).to_contain_text("digits")
    first.click()
    page.wait_for_url("**/tasks/*")


def test_a_point_of_the_atlas_is_named_led_to_and_seen_nearer(page: Page, task: str) -> None:
    page.goto("/atlas")
    while "No map was drawn yet" in page.content():
        page.wait_for_timeout(500)
        page.reload()
    expect(page.locator("#atlas-says")).to_contain_text("tasks.")
    page.select_option("#colour", "tag")
    legend = page.evaluate(f"{CHART}.getOption().legend[0].data.map((each) => each.name)")
    series = page.evaluate(
        f"{CHART}.getOption().series.map((each) => [each.name, each.symbolSize])"
    )
    assert "emoji" in legend
    assert {name for name, _ in series if name} <= set(legend)
    assert len({size for name, size in series if name}) >= 4
    x, y, identity, name = page.evaluate(ALONE)
    box = page.locator("[data-chart=atlas]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + x, box["y"] + y)
    expect(page.get_by_text(name).last).to_be_visible()
    shown = f"{CHART}.getOption().dataZoom.map((each) => each.end - each.start)"
    for _ in range(100):
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(50)
        if max(page.evaluate(shown)) < 50:
            break
    assert max(page.evaluate(shown)) < 50
    page.reload()
    expect(page.locator("#atlas-says")).to_contain_text("tasks.")
    x, y, identity, _ = page.evaluate(ALONE)
    page.mouse.click(box["x"] + x, box["y"] + y)
    page.wait_for_url(f"**/tasks/{identity}")


def test_a_map_of_many_is_read_page_by_page_drawn_whole_searched_and_zoomed(
    browser: Browser, address: str
) -> None:
    told = measure(browser, address, made_up(drawn(address), 12_000), None)
    assert told["wheel_ms"] <= told["wheel_most_ms"]  # all points are there, and found, or it ends


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_atlas_is_saved_as_a_picture_in_the_colours_of_the_page(
    page: Page, task: str, tmp_path: Path, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto("/atlas")
    while "No map was drawn yet" in page.content():
        page.wait_for_timeout(500)
        page.reload()
    expect(page.locator("#atlas-says")).to_contain_text("tasks.")
    for kind in ("PNG", "SVG"):
        with page.expect_download() as saved:
            page.get_by_role("button", name=f"Save as {kind}").click()
        assert saved.value.suggested_filename == f"atlas.{kind.lower()}"
        saved.value.save_as(tmp_path / kind)
    width, height = page.evaluate(
        "(({ width, height }) => [Math.round(width), Math.round(height)])"
        "(document.querySelector('[data-chart=atlas] canvas').getBoundingClientRect())"
    )
    with Image.open(tmp_path / "PNG") as image:
        assert image.size == (2 * width, 2 * height)
        paper = image.convert("RGB").getpixel((1, 1))
        assert len(image.convert("RGB").getcolors(2**24) or []) > 50
    assert isinstance(paper, tuple)
    assert (min(paper) > 200) == (scheme == "light")
    drawn = ElementTree.parse(tmp_path / "SVG").getroot()
    marks = [each for each in drawn.iter() if each.tag.endswith("}path")]
    assert drawn.get("width") == str(width)
    assert len(marks) > 100  # a point each


def test_tags_are_changed_and_an_outcome_reported_from_the_page(page: Page, task: str) -> None:
    page.goto(task)
    page.fill("#tags", "drawn, by hand")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("a.tag")).to_have_text(["by hand", "drawn"])
    page.goto(f"{task}/runs")
    page.select_option("#model", "resnet18.a1_in1k")
    asked: list[str] = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.fill("#value", "0.93")
    page.get_by_role("button", name="Report").click()
    assert asked == ["0.93% is less than one in a hundred. Is that meant?"]
    page.fill("#value", "87.5")
    page.get_by_label("Measured on, images").fill("24")
    with page.expect_response("**/v1/outcomes") as answered:
        page.get_by_role("button", name="Report").click()
    assert answered.value.request.post_data_json["n_held_out"] == 24
    expect(page.locator("td", has_text="88%")).to_be_visible()


def test_a_form_that_is_refused_says_why_beside_it(page: Page, task: str) -> None:
    page.goto(f"{task}/runs")
    page.select_option("#model", "resnet18.a1_in1k")
    page.fill("#value", "87.5")
    page.evaluate("document.querySelector('[name=task]').value = 'unheard-of'")
    with page.expect_response("**/v1/outcomes"):
        page.get_by_role("button", name="Report").click()
    expect(page.get_by_role("alert").filter(has_text="unheard-of")).to_be_visible()


def test_who_has_a_key_logs_in_works_and_logs_out(
    browser: Browser, locked: tuple[str, str], tmp_path: Path
) -> None:
    url, secret = locked
    page = browser.new_context(base_url=url).new_page()
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto("/?q=nothing")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert Axe().run(page).violations_count == 0
    page.get_by_label("API key").fill("t2v_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("This API key is unknown.")).to_be_visible()
    page.get_by_label("API key").fill(secret)
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=nothing")
    expect(page.get_by_text("acme · write")).to_be_visible()
    assert Axe().run(page).violations_count == 0
    archive = tmp_path / "set.zip"
    archive.write_bytes(labelled_zip(2, 3))
    page.set_input_files("#archive", archive)
    page.wait_for_url("**/tasks/*")  # what scripts send goes in by the cookie, too
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto("/")
    expect(page.get_by_label("API key")).to_be_visible()
    page.context.close()
