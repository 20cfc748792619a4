"""Runs that were not forecast from themselves: made-up pictures, a tiny network, made-up outcomes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from app.catalogue import CandidateCard, DeviceCard, RecipeCard, get_card, load_cards
from app.cost.evidence import Evidence
from app.cost.features import TaskFacts
from app.cost.outcome_table import read_outcomes
from app.cost.timing import Spread, Timing
from app.reference import pictures
from app.reference.sets import Picture, Pool
from app.settings import shared_directory
from app.store.estimators import shipped
from benchmarks import forecast
from benchmarks.forecasts import charts, measures
from benchmarks.forecasts.cells import Cell, Shelf, planned, run_of
from benchmarks.forecasts.plot import plot
from benchmarks.forecasts.tasks import NEW, UnseenTask, task_of
from benchmarks.forecasts.told import Catalogue, Forecaster, Judged, Known, Tenant
from tests.training import runs as small

MODELS = shared_directory("models")
LITE = tuple(f"tf_efficientnet_lite{size}.in1k" for size in (0, 1, 2))


def pool(sizes: dict[str, int]) -> Pool:
    """Plain squares, each of a grey of its own, called by their class."""
    shown = [(label, number) for label, size in sizes.items() for number in range(size)]
    return Pool(
        "made up",
        "none",
        ("squares",),
        tuple(
            Picture(f"{label} {number}", square(row), {"shape": label})
            for row, (label, number) in enumerate(shown)
        ),
    )


def square(row: int) -> bytes:
    return pictures.to_png(Image.new("RGB", (4, 4), (row % 256, row // 256, 0)))


def task(name: str = "squares", **sizes: int) -> UnseenTask:
    return task_of(name, NEW, pool(sizes), "shape", 6)


def test_no_picture_is_both_sent_and_kept_back_nor_one_that_was_used() -> None:
    every = pool({"one": 20, "two": 9, "few": 4})
    used = {digest_of(picture) for picture in every.pictures[:5]}
    found = task_of("squares", NEW, every, "shape", 6, used)
    sent, more = ({data for _, data in part.images} for part in (found.labelled, found.more))
    assert not sent & more
    assert not (sent | more) & {picture.data for picture in every.pictures[:5]}
    assert found.classes == ("one", "two")
    assert [label for label, _ in found.labelled.images].count("two") == 6
    assert [label for label, _ in found.more.images].count("one") == 9


def digest_of(picture: Picture) -> str:
    return hashlib.sha256(picture.data).hexdigest()


def test_a_class_with_few_pictures_keeps_a_third_of_them_back() -> None:
    found = task_of("squares", NEW, pool({"one": 30, "two": 9}), "shape", 20)
    assert [label for label, _ in found.more.images].count("two") == 3


def test_charts_are_the_same_again_and_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "_OF_A_KIND", 1)
    first, again = charts.kinds(), charts.kinds()
    assert first == again
    assert len({picture.data for picture in first.pictures}) == len(charts._KINDS)


def test_cells_go_round_by_round_and_other_pictures_make_another_cell() -> None:
    tasks = [task("a", one=20, two=20), task("b", one=20, two=20)]
    cards = [get_card(MODELS, CandidateCard, name) for name in LITE]
    recipes = [get_card(MODELS, RecipeCard, name) for name in ("head_only", "full")]
    cells = planned(tasks, cards, [(recipes[0], 3), (recipes[1], 1)])
    assert [cell.task.name for cell in cells] == ["a"] * 3 + ["b"] * 3 + ["a", "b"]
    assert len({(cell.digest, cell.name) for cell in cells}) == len(cells)
    other = replace(cells[0], task=task("a", one=20, two=20, three=20))
    assert other.name == cells[0].name
    assert other.digest != cells[0].digest


@pytest.fixture
def hues() -> UnseenTask:
    """Red or blue noise."""
    random = np.random.default_rng(0)

    def noise(channel: int) -> bytes:
        pixels = random.integers(0, 100, (32, 32, 3), dtype=np.uint8)
        pixels[:, :, channel] += 100
        return pictures.to_png(Image.fromarray(pixels))

    shown = tuple(
        Picture(f"{hue} {number}", noise(channel), {"hue": hue})
        for hue, channel in (("red", 0), ("blue", 2))
        for number in range(40)
    )
    return task_of("hues", NEW, Pool("noise", "none", (), shown), "hue", 20)


def test_a_run_is_made_once_and_traced_after_every_epoch_when_whole(
    hues: UnseenTask, tmp_path: Path
) -> None:
    cell = Cell(hues, small.candidate(tmp_path), small.FULL)
    shelf = Shelf(tmp_path / "shelf")
    assert shelf.load(cell) is None
    made = shelf.make(cell)
    assert shelf.load(cell) == json.loads(json.dumps(made))
    assert [epoch["information"] > 0 for epoch in made["curve"]] == [True] * small.FULL.epochs
    assert made["n_train"] + made["n_held_out"] == hues.n_images == 40
    assert made["seconds"] > 0
    assert not list((shelf.root / "running").iterdir())


def test_features_are_looked_at_once(hues: UnseenTask, tmp_path: Path) -> None:
    cell = Cell(hues, small.candidate(tmp_path), small.HEAD)
    shelf = Shelf(tmp_path / "shelf")
    assert shelf.scores(cell) is None
    shelf.tell(cell)
    told = shelf.scores(cell)
    assert told is not None
    assert set(told) == {"score_ridge", "score_logme"}
    assert told["score_ridge"] > 0.8


def test_a_run_of_the_head_alone_has_no_trace_and_is_judged_on_pictures_it_never_had(
    hues: UnseenTask, tmp_path: Path
) -> None:
    made = run_of(Cell(hues, small.candidate(tmp_path), small.HEAD), tmp_path)
    assert made["more_judged"] == len(hues.more.images) == 40
    assert made["more_right"] > 30
    assert {epoch["information"] for epoch in made["curve"]} == {None}
    assert made["layers"] == {}


def run(task: str, model: str, value: float, seconds: float, recipe: str = "head_only") -> Any:
    return {
        "task": task,
        "model": model,
        "recipe": recipe,
        "value": value,
        "more_right": round(100 * value),
        "more_judged": 100,
        "seconds": seconds,
        "memory_mib": 900.0,
        "stop_reason": "cap",
        "source": NEW,
        "n_train": 48,
        "n_held_out": 12,
    }


def outcomes(tasks: int) -> list[Any]:
    """Of tasks from easy to hard, on which the larger network is a little better."""
    random = np.random.default_rng(1)
    return [
        run(f"task {number}", model, 0.5 + 0.03 * number + 0.02 * size, 5.0 * (size + 1) * jitter)
        for number in range(tasks)
        for size, model in enumerate(LITE)
        for jitter in [np.exp(random.normal(0, 0.1))]
    ]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(
        load_cards(MODELS, CandidateCard),
        load_cards(MODELS, RecipeCard),
        get_card(MODELS, DeviceCard, "cpu-2core"),
    )


def known() -> dict[str, Known]:
    facts = TaskFacts(60, 2, 1.0, "single_label", 4096.0)
    return {f"task {number}": Known(facts, 0.5 + 0.03 * number) for number in range(12)}


@cache
def some_shipped() -> Evidence:
    """Of a few tasks, which are fitted in no time."""
    runs = shipped(MODELS).runs
    return Evidence(runs.filter(pl.col("task").is_in(sorted(set(runs["task"]))[:4])))


def forecaster(catalogue: Catalogue, outcomes: list[Any]) -> Forecaster:
    return Forecaster(some_shipped(), catalogue, known(), outcomes)


def typical(judged: list[Judged]) -> dict[tuple[str, str], tuple[float, float]]:
    return {
        (each.run["task"], each.run["model"]): (
            each.told.accuracy.typical if each.told.accuracy else np.nan,
            each.told.seconds.typical,
        )
        for each in judged
    }


def changed(outcomes: list[Any], task: str) -> list[Any]:
    return [
        each | {"value": 0.2, "seconds": 7 * each["seconds"]} if each["task"] == task else each
        for each in outcomes
    ]


def test_no_forecast_sees_its_own_task_nor_one_that_comes_later(catalogue: Catalogue) -> None:
    order = [f"task {number}" for number in range(4)]
    stages = {
        "alone": lambda seen: seen.before_any(),
        "in order": lambda seen: seen.in_order(order)[0],
        "left out": lambda seen: seen.one_left_out(),
    }
    made = outcomes(4)
    plain, other = (
        {name: typical(stage(forecaster(catalogue, runs))) for name, stage in stages.items()}
        for runs in (made, changed(made, "task 2"))
    )
    assert plain["alone"] == other["alone"]
    for stage, tasks in {"in order": order[:3], "left out": ["task 2"]}.items():
        for key in plain[stage]:
            assert (plain[stage][key] == other[stage][key]) == (key[0] in tasks), (stage, key)
    first = {key: told for key, told in plain["in order"].items() if key[0] == "task 0"}
    assert first == {key: plain["alone"][key] for key in first}


def test_what_features_tell_enters_the_forecast_of_its_task(catalogue: Catalogue) -> None:
    made = outcomes(3)
    plain = forecaster(catalogue, made)
    easy = {model: {"score_ridge": 0.97, "score_logme": 0.1} for model in LITE}
    before, after = (
        typical(each.before_any()) for each in (plain, plain.with_scores({"task 0": easy}))
    )
    assert after["task 0", LITE[0]][0] > before["task 0", LITE[0]][0]
    assert after["task 1", LITE[0]] == before["task 1", LITE[0]]


def test_intervals_are_calibrated_from_nine_tasks_of_ones_own_on(catalogue: Catalogue) -> None:
    tenant = Tenant(some_shipped(), catalogue, known())
    made = outcomes(12)

    def kinds() -> set[str]:
        told = tenant.forecast("task 11", "head_only", [LITE[0]])[LITE[0]]
        assert told.accuracy
        return {told.accuracy.kind, told.seconds.kind, told.memory_mib.kind}

    tenant.report(made[: 3 * 8])
    assert kinds() == {"uncalibrated_range"}
    tenant.report(made[3 * 8 : 3 * 9])
    assert kinds() == {"conformal_90"}
    assert (tenant.refused, tenant.aside) == (0, 0)
    tenant.report([made[-1] | {"seconds": 1e5}])
    assert tenant.aside == 1


def test_outcomes_correct_seconds(catalogue: Catalogue) -> None:
    told, _ = forecaster(catalogue, outcomes(4)).in_order([f"task {n}" for n in range(4)])
    first, last = (measures.of_number(part, "seconds") for part in (told[:3], told[-3:]))
    assert first and last
    assert first["median_log"] > 0.3 > 0.15 > last["median_log"]


def test_timed_steps_are_used_until_runs_of_ones_own_say_more(catalogue: Catalogue) -> None:
    slow = Timing(64, Spread(99.0, 100.0, 101.0), Spread(49.0, 50.0, 51.0))
    timed = forecaster(catalogue, outcomes(2)).with_timings({LITE[0]: slow})
    told, _ = timed.in_order(["task 0", "task 1"])
    assert [(each.run["model"], each.told.timed) for each in told[:3]] == [
        (LITE[0], True),
        (LITE[1], False),
        (LITE[2], False),
    ]
    assert told[0].told.seconds.typical > 40
    assert not told[3].told.timed


def test_figures_count_what_lies_inside_and_lose_what_was_not_chosen(catalogue: Catalogue) -> None:
    judged = forecaster(catalogue, outcomes(3)).before_any()
    found = measures.of_accuracy(judged)
    assert found
    assert found["runs"] == 9
    by_hand = sum(
        each.told.accuracy.low <= each.run["value"] <= each.told.accuracy.high for each in judged
    )
    assert found["inside"] == by_hand
    assert measures.regret(judged, measures.by_top1) == {"kept_back": 0.0, "held_out": 0.0}
    chance = measures.regret(judged, measures.by_chance)
    assert chance
    assert chance["held_out"] == pytest.approx(2.0)
    assert measures.regret(judged[:1], measures.by_chance) is None


def test_orders_are_not_mixed_where_what_was_not_chosen_is_counted(catalogue: Catalogue) -> None:
    judged = forecaster(catalogue, outcomes(2)).before_any()
    twice = judged + [replace(each, order=1) for each in judged]
    one, both = (measures.regret(some, measures.first_choice) for some in (judged, twice))
    assert one == both


def test_what_was_seen_is_a_mean_of_other_tasks_of_the_same_candidate(catalogue: Catalogue) -> None:
    made = outcomes(3)
    judged = forecaster(catalogue, made).before_any()[:3]
    guesses = measures.Baselines(some_shipped(), known(), made)
    alone, own = (
        guesses.of(judged, lambda _, seen=seen: seen)["mean of what was seen"]
        for seen in (set(), {"task 1"})
    )
    assert own == pytest.approx([0.53, 0.55, 0.57])
    assert not np.allclose(alone, own)
    assert measures.seconds_seen(judged, made, lambda _: set()) is None
    assert measures.seconds_seen(judged, made, lambda each: {each.run["task"]}) == 0


def test_the_table_can_be_read_and_the_report_ends_in_figures(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    made = outcomes(3)
    forecast.write_table(tmp_path / "runs.csv", made, known())
    table = read_outcomes(tmp_path / "runs.csv", "csv")
    assert not table.errors
    assert table.runs["value"].to_list() == [each["value"] for each in made]
    assert set(table.runs["probe_accuracy"]) == {
        known()[f"task {n}"].probe_accuracy for n in (0, 1, 2)
    }
    baselines = measures.Baselines(some_shipped(), known(), made)
    figures, stages = forecast.report(forecaster(catalogue, made), baselines, made, 1)
    assert figures["after_1"]["head_only"]["seconds"]["runs"] == 6
    assert json.dumps(figures, allow_nan=False)
    plot(tmp_path / "forecast.svg", stages)
    points = (tmp_path / "forecast.svg").read_text().count("<use ")
    assert points > 4 * len(made), "each run in four panels"


def flatter(run: Any, share: float) -> Any:
    """The same run, of whose information this share of the last is left; the less, the worse it
    does on new images."""
    last = run["curve"][-1]
    less = {"information": share * last["information"], "loss": last["loss"] + 1 - share}
    return run | {"curve": [*run["curve"][:-1], last | less], "more_right": 20 * share}


def test_information_is_told_of_runs_that_were_traced(
    hues: UnseenTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run_of(Cell(hues, small.candidate(tmp_path), small.FULL), tmp_path)
    assert forecast.information([made]) == {"runs": 1}
    told = forecast.information([flatter(made, share) for share in (1.0, 0.5, 0.1)])
    assert 0.1 < told["left_of_the_most"] < 1
    assert told["with_gap_in_loss"][0] == pytest.approx(-1)
    assert "hues" in capsys.readouterr().out
