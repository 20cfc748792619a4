from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm
import torch

from app.cost.outcome_table import parse_outcomes
from benchmarks.grid import cells, selection, tasks, training
from benchmarks.grid.cells import Cell, Shelf, planned, rows_of
from benchmarks.grid.scores import SCORES
from benchmarks.grid.starts import STARTS, Start
from benchmarks.grid.tasks import GridTask, grid_task
from benchmarks.grid.training import Schedule, fine_tune
from benchmarks.quality import written

NAN = float("nan")


@pytest.fixture(scope="module")
def digits() -> dict[str, GridTask]:
    return {task.name: grid_task(task, 40) for task in written.digit_tasks()}


@pytest.fixture
def easy(digits: dict[str, GridTask], monkeypatch: pytest.MonkeyPatch) -> GridTask:
    """Threes or eights, at a size that takes no time."""
    monkeypatch.setattr(tasks, "INPUT_SIZE", 32)
    task = digits["digits-3-or-8"]
    learn, judge = (replace(images) for images in (task.learn, task.judge))
    return replace(task, learn=learn, judge=judge)


def small(n_classes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=n_classes)


def test_no_picture_is_learnt_by_one_task_and_judged_on_by_another(
    digits: dict[str, GridTask],
) -> None:
    learnt = {digest for task in digits.values() for digest in task.learn.digests}
    plain = [task for task in digits.values() if "turns" not in task.name]
    assert len(plain) == 5
    for task in plain:
        assert not learnt & set(task.judge.digests)


def test_no_class_has_more_than_its_share_and_every_fifth_is_held_out(
    digits: dict[str, GridTask],
) -> None:
    task = digits["digits-parity"]
    assert np.bincount(task.learn.labels).tolist() == [20, 20]
    fit, held_out = task.parts
    assert np.bincount(held_out.labels).tolist() == [4, 4]
    assert sorted(fit.digests + held_out.digests) == sorted(task.learn.digests)
    assert task.labelled.images[0][0] == task.classes[0]


def test_a_class_without_enough_images_to_hold_some_out_is_left_out() -> None:
    (twin, *_) = written.digit_tasks()
    few = {p.key for p in twin.ask(twin.a).pictures if p.facts["digit"] == "0"}
    kept = tuple(p for p in twin.a.pictures if p.key not in few)
    task = grid_task(replace(twin, a=replace(twin.a, pictures=kept)), 40)
    assert "0" not in task.classes


def test_a_run_learns_stops_by_itself_and_comes_out_the_same_again(easy: GridTask) -> None:
    schedule = Schedule(learning_rate=3e-3, max_epochs=12, patience=3)
    first, again = (fine_tune(small(2), easy, schedule, seed=1) for _ in range(2))
    assert first.accuracy > 0.75
    assert first.curve == again.curve
    assert first.steps == 2 * first.epochs
    assert first.curve[-1].training_loss < first.curve[0].training_loss
    best = min(range(first.epochs), key=lambda i: first.curve[i].validation_loss)
    stopped = first.epochs - 1 - best >= schedule.patience
    assert first.stop_reason == ("converged" if stopped else "cap")


def test_the_network_is_left_with_the_weights_that_were_judged(easy: GridTask) -> None:
    network = small(2)
    run = fine_tune(network, easy, Schedule(max_epochs=2), seed=0)
    found = training.outputs(network, easy.judge.pixels).argmax(1).numpy()
    assert (found == easy.judge.labels).mean() == run.accuracy


def test_a_shifted_image_stays_within_its_border() -> None:
    image = np.full((8, 8, 3), 255, np.uint8)
    image[3:5, 3:5] = 0
    shifted = training._shifted(image, np.random.default_rng(0))
    assert shifted.shape == image.shape
    assert (shifted == 0).sum() in {12, 6, 3, 0}


def test_an_expert_does_not_run_on_its_own_task_and_some_run_again(
    digits: dict[str, GridTask],
) -> None:
    some = [digits["digits"], digits["digits-ink"]]
    work = list(planned(some, STARTS, ["digits-ink"], seeds=2))
    names = [cell.name for cell in work]
    assert len(set(names)) == len(names) == 2 * (2 * len(STARTS) - 1) + len(STARTS)
    assert not [name for name in names if name.startswith("digits--lite0-digits--")]


class FewExperts:
    def network(self, start: Start, *, n_classes: int, seed: int) -> torch.nn.Module:
        return small(n_classes)


def test_a_cell_is_kept_whole_and_is_another_with_other_settings(
    easy: GridTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "SCHEDULE", Schedule(max_epochs=1))
    shelf = Shelf(tmp_path)
    full, head = (Cell(easy, STARTS[0], recipe, 0) for recipe in ("full", "head_only"))
    assert shelf.load(full) is None
    for cell in (full, head):
        shelf.make(cell, FewExperts())  # type: ignore[arg-type]
    row = shelf.load(full)["row"]
    assert (row["task"], row["model"], row["recipe"]) == (
        *("digits-3-or-8", "tf_efficientnet_lite0.in1k", "full"),
    )
    assert (row["epochs"], row["stop_reason"], row["n_train"]) == (1, "cap", 40)
    assert shelf.load(head)["row"]["epochs"] is None
    assert len(np.load(shelf.features_path(head))) == 40
    assert shelf.scores(full) is None
    assert shelf.scores(head)["score_knn"] > 0.5
    shelf.features_path(head).unlink()
    assert shelf.scores(head)["score_knn"] > 0.5
    shelf.path(head).write_text('{"row": {"ta', encoding="utf-8")
    assert shelf.load(head) is None
    monkeypatch.setattr(cells, "SCHEDULE", Schedule(max_epochs=2))
    assert shelf.load(full) is None


ERROR = np.array([[0.1, 0.2, 0.4], [0.3, 0.2, 0.1], [0.2, NAN, 0.1]])


def test_errors_are_pooled_before_the_ratio() -> None:
    assert selection.increase(ERROR, selection.always(ERROR, 0)) == pytest.approx(100.0)
    assert selection.increase(ERROR, -ERROR) == pytest.approx(0.0)
    blind = (0.7 / 3 + 0.2 + 0.15) / 0.3 - 1
    assert selection.chance(ERROR) == pytest.approx(100 * blind)


def test_a_start_that_did_not_run_is_never_chosen() -> None:
    strength = np.array([[0.0, 9.0, 1.0]] * 3)
    assert selection.increase(ERROR[2:], strength[2:]) == pytest.approx(0.0)


def test_a_distance_is_chosen_on_the_other_tasks() -> None:
    error = np.tile([0.5, 0.1, 0.4], (6, 1))
    good, bad = (np.tile([NAN, a, 1.0 - a], (6, 1)) for a in (0.1, 0.9))
    chosen = selection.by_best_distance(error, [bad, good], fallback=[0])
    assert selection.increase(error, chosen) == pytest.approx(0.0)
    # The task for which the bad distance would be right is judged by what is right elsewhere.
    error[0] = [0.5, 0.4, 0.1]
    chosen = selection.by_best_distance(error, [bad, good], fallback=[0])
    assert np.argmax(chosen[0]) == 1


def test_the_oracle_that_reads_another_seed_is_perfect_only_without_noise() -> None:
    same = np.array([ERROR[:2], ERROR[:2], ERROR[:2]])
    assert selection.replicate_oracle(same) == pytest.approx(0.0)
    noise = np.random.default_rng(0).uniform(0.1, 0.2, (3, 40, 5))
    assert selection.replicate_oracle(noise) > 5.0


def test_similar_tasks_weigh_more_only_where_that_chose_better_elsewhere() -> None:
    kind = np.arange(12) % 2
    error = np.where(kind[:, None] == 0, [[0.1, 0.3]], [[0.3, 0.1]])
    far = (kind[:, None] != kind[None]).astype(float)
    assert selection.increase(error, selection.by_similar_tasks(error, far)) == pytest.approx(0.0)
    useless = np.ones((12, 12))
    plain = selection.by_similar_tasks(error, useless)
    assert selection.increase(error, plain) > 50.0


def test_a_table_of_earlier_cells_stands_in_for_their_files(
    easy: GridTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "SCHEDULE", Schedule(max_epochs=1))
    shelf = Shelf(tmp_path / "first")
    made, other = (Cell(easy, STARTS[0], "head_only", seed) for seed in (0, 1))
    shelf.make(made, FewExperts())  # type: ignore[arg-type]
    row, scores = shelf.load(made), shelf.scores(made)
    assert row is not None
    assert scores is not None
    table = tmp_path / "table.csv"
    pl.DataFrame([{**row["row"], **scores}]).write_csv(table)
    known = Shelf(tmp_path / "second", rows_of(table))
    assert known.load(made) == {"row": row["row"]}
    assert known.scores(made) == scores
    assert known.load(other) is None
    assert known.scores(other) is None


def test_what_similar_tasks_reached_is_a_score_of_the_estimators() -> None:
    """Two kinds of tasks, on which starts come in opposite orders."""
    random = np.random.default_rng(0)
    tasks_, starts = [f"t{n:02}" for n in range(16)], ["a", "b", "c", "d"]
    kind = np.arange(16) % 2
    order = np.where(kind[:, None] == 0, [0.8, 0.7, 0.6, 0.5], [0.5, 0.6, 0.7, 0.8])
    value = order + random.normal(0, 0.02, order.shape)
    rows = [
        {"task": task, "model": start, "metric": "accuracy", "value": float(value[t, m])}
        for t, task in enumerate(tasks_)
        for m, start in enumerate(starts)
    ]
    table = parse_outcomes(pl.DataFrame(rows))
    far = np.where(kind[:, None] == kind[None, :], 0.01, 1.0) * ~np.eye(16, dtype=bool)
    error = 1.0 - value
    plain = selection.by_outcomes(table, tasks_, starts)
    similar = selection.by_outcomes(table, tasks_, starts, far)
    assert selection.agreement(error, similar).mean() > 0.9
    assert selection.agreement(error, plain).mean() < 0.5
    assert selection.increase(error, similar) < selection.increase(error, plain)


def test_agreement_counts_those_that_ran() -> None:
    error = np.array([[0.1, 0.2, NAN], [0.3, 0.2, 0.1]])
    assert selection.agreement(error, -error).tolist() == [1.0, 1.0]
    assert selection.agreement(error, error)[0] == -1.0


def test_a_table_of_another_schedule_stands_in_for_nothing(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    row = {"task": "t", "model": "m", "recipe": "full", "seed": 0, **cells._FULL}
    row |= dict.fromkeys(SCORES, 0.5)
    for changes, count in (({}, 1), ({"max_epochs": 99}, 0)):
        pl.DataFrame([row | changes]).write_csv(table)
        assert len(rows_of(table)) == count
    pl.DataFrame([row]).drop("score_ridge").write_csv(table)
    assert rows_of(table) == {}
