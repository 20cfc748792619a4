"""Tables fit their place: ids are cut, columns left out, and what is left is told."""

from __future__ import annotations

import re
import time
from io import StringIO

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from app.terminal.cells import CandidateName, Id, minute
from app.terminal.layout import Listing
from app.terminal.progress import phases, tell_phases
from app.terminal.tasks import task_facts
from app.terminal.upkeep import check_report

ID = "0123456789abcdef0123456789abcdef"
NETWORK, PRETRAINING = "swin_small_patch4_window7_224", ".ms_in22k_ft_in1k"
ROWS = [{"id": ID, "candidate": NETWORK + PRETRAINING, "n": "12,345", "why": "one two three"}]


def printed(what: RenderableType) -> str:
    console = Console(width=100, record=True, file=StringIO())
    console.print(what)
    return console.export_text()


def drawn(width: int, rows: list[dict[str, str]] = ROWS, empty: str | None = None) -> list[str]:
    console = Console(width=width, record=True, file=StringIO())
    console.print(
        Listing(
            "Title",
            {
                "id": lambda row: Id(row["id"]),
                "candidate": lambda row: CandidateName(row["candidate"]),
                "#count": lambda row: row["n"],
                "why": lambda row: Text(row["why"]),
            },
            rows,
            spare=("why", "#count"),
            caption="Said below.",
            empty=empty,
        )
    )
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_a_table_that_fits_is_whole() -> None:
    lines = drawn(120)
    assert any(ID in line and NETWORK + PRETRAINING in line for line in lines)
    assert not any("Too narrow" in line for line in lines)


def test_ids_are_cut_before_anything_else() -> None:
    lines = drawn(70)
    assert not any(ID in line for line in lines)
    row = next(line for line in lines if ID[:8] in line)
    assert "12,345" in row and NETWORK in row
    assert not any("Too narrow" in line for line in lines)


@pytest.mark.parametrize(
    ("width", "told"),
    [
        (50, "Too narrow for why; --json has all."),
        (43, "Too narrow for why, count; --json has all."),
    ],
)
def test_columns_are_left_out_in_order_and_that_is_told(width: int, told: str) -> None:
    lines = drawn(width)
    assert " ".join(" ".join(lines).split()).endswith(f"Said below. {told}")
    assert any(line.split()[:2] == [ID[:8], NETWORK] for line in lines)
    assert any(line.strip() == PRETRAINING for line in lines)


@pytest.mark.parametrize("width", range(20, 130, 10))
def test_no_table_is_wider_than_its_place(width: int) -> None:
    assert max(map(len, drawn(width))) <= width


def test_times_are_not_broken() -> None:
    console = Console(width=60, record=True, file=StringIO())
    rows = [
        {"at": "2026-11-28T05:11:09+00:00", "what": "a story of words"},
        {"at": None, "what": ""},
    ]
    columns = {name: lambda row: minute(row["at"]) for name in ("at", "until")}
    columns |= {name: lambda row: Text(row["what"]) for name in ("what", "why")}
    console.print(Listing("Title", columns, rows))
    assert console.export_text().count("2026-11-28 05:11") == 2


def test_words_without_end_fold_and_cost_no_column() -> None:
    lines = drawn(80, [{**ROWS[0], "why": "x" * 300}])
    assert sum(line.count("x") for line in lines) == 300
    assert not any("Too narrow" in line for line in lines)


def test_a_table_without_rows_says_what_makes_some() -> None:
    assert drawn(80, [], empty="Nothing yet.") == ["Nothing yet."]
    assert drawn(80, [])[0] == "Title"


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({"tasks": 1440, "easier": 1031}, "0.3; of the library's 1,440 tasks 1,031 ask for less"),
        ({"tasks": 0, "easier": 0}, "0.3"),
    ],
)
def test_a_complexity_is_told_beside_those_that_are_known(known: dict[str, int], says: str) -> None:
    task = {
        "id": ID,
        "name": "cats",
        "status": "ready",
        "tags": [],
        "intake": None,
        "counts": {"images": 9, "classes": 3},
        "complexity": 0.3,
        "noise_floor": 0.1,
        "among_library": known,
    }
    (line,) = [line for line in printed(task_facts(task)).splitlines() if "complexity" in line]
    assert line.split("complexity")[1].strip() == says


def test_what_was_looked_at_is_counted_in_words() -> None:
    checked = {"tasks": 1, "index rows": 2, "atlases": 1, "estimators": 1}
    told = printed(check_report({"checked": checked, "findings": []}))
    assert "Looked at 1 task, 2 index rows, 1 atlas, 1 estimator." in told


def test_what_goes_on_is_told_and_counted_where_it_is_known_how_much_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=90, _environ={"TERM": "xterm"})
    monkeypatch.setattr("app.terminal.progress.err", console)
    with phases() as tell:
        for told in (("opening", 0, 0), ("copying", 1, 8), ("copying", 2, 8), ("storing", 0, 0)):
            tell(*told)
            end, shown = time.monotonic() + 30, f"{told[1]}/8" if told[1] else told[0]
            while shown not in screen.getvalue() and time.monotonic() < end:
                time.sleep(0.01)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n").split("\n")
    words = [line.split()[1:] for line in lines if line.strip()]  # after the spinner
    shown = list(dict.fromkeys(" ".join((line[0], *line[2:])) for line in words))
    assert shown == ["opening", "copying 1/8", "copying 2/8", "storing"]


def test_where_nobody_looks_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr("app.terminal.progress.err", Console(file=screen, force_terminal=False))
    with phases() as tell:
        tell("copying", 1, 8)
    assert screen.getvalue() == ""


def test_in_a_log_a_line_tells_that_a_phase_begins(capsys: pytest.CaptureFixture[str]) -> None:
    events = [
        {"phase": "queued", "state": "queued"},
        {"phase": "features", "state": "running"},
        {"phase": "features", "state": "running"},
        {"phase": "fisher", "state": "running"},
    ]
    tell_phases("digits", events)
    assert capsys.readouterr().err == "digits: features\ndigits: fisher\n"
