from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from app.cost.cells import SHIPPED, make_cells, with_contest
from app.cost.conformal import LEAST_GROUPS
from app.cost.estimator import AccuracyEstimator, Question
from app.cost.predictor import Interval
from tests.cost.outcomes import runs, table

MODELS = [f"model-{i}" for i in range(6)]


def asked(task: str, models: list[str], recipe: str = "full", **known) -> Question:
    published = known.pop("published", {})
    return Question(
        task=task,
        recipe=recipe,
        metric="accuracy",
        published={model: published.get(model) for model in models},
        **known,
    )


def estimator(frame: pl.DataFrame) -> AccuracyEstimator:
    return AccuracyEstimator(table(frame.drop("score_truth", "score_noise")))


def test_candidates_of_a_new_task_are_told_in_the_order_of_other_tasks():
    found = estimator(runs(noise=0.05)).forecast(asked("new", MODELS))
    assert [i.typical for i in found.values()] == sorted(i.typical for i in found.values())
    assert all(0 < i.low < i.typical < i.high < 1 for i in found.values())


def test_intervals_cover_ninety_per_cent_of_tasks_never_seen():
    inside = []
    for seed in range(4):
        frame = runs(60, noise=0.4, seed=seed)
        fitted = estimator(frame.filter(pl.col("task") < "task-20"))
        for (task,), rows in frame.filter(pl.col("task") >= "task-20").group_by("task"):
            found = fitted.forecast(asked(str(task), rows["model"].to_list()))
            for model, value in rows.select("model", "value").iter_rows():
                assert found[model].kind == "conformal_90"
                inside.append(found[model].low <= value <= found[model].high)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.05)


def test_a_candidate_asked_for_alone_is_told_as_among_others():
    fitted = estimator(runs())
    together = fitted.forecast(asked("new", MODELS))
    for model in MODELS:
        assert fitted.forecast(asked("new", [model]))[model].typical == pytest.approx(
            together[model].typical
        )


def test_an_outcome_of_the_task_narrows_and_moves_what_is_told_of_the_others():
    frame = runs(noise=0.05)
    before = estimator(frame).forecast(asked("new", MODELS))["model-3"]
    seen = frame.filter((pl.col("task") == "task-00") & (pl.col("model") == "model-0"))
    for value in (0.05, 0.9):
        more = seen.with_columns(task=pl.lit("new"), value=pl.lit(value))
        after = estimator(pl.concat([frame, more])).forecast(asked("new", MODELS))
        assert after["model-3"].high - after["model-3"].low < 0.5 * (before.high - before.low)
        assert (after["model-3"].typical > before.typical) == (value > 0.5)


def test_with_few_tasks_the_interval_is_uncalibrated_and_says_so():
    for n_tasks, kind in ((LEAST_GROUPS - 1, "uncalibrated_range"), (LEAST_GROUPS, "conformal_90")):
        found = estimator(runs(n_tasks)).forecast(asked("new", MODELS[:1]))
        assert found["model-0"].kind == kind


def test_what_was_not_tried_on_two_other_tasks_is_not_told():
    frame = runs(2)
    fitted = estimator(frame)
    assert set(fitted.forecast(asked("new", [*MODELS, "stranger"]))) == set(MODELS)
    assert fitted.forecast(asked("task-00", MODELS)) == {}


def test_a_recipe_without_outcomes_is_told_from_others():
    found = estimator(runs(noise=0.05)).forecast(asked("new", MODELS, "head_only"))
    assert found["model-5"].typical > found["model-0"].typical


def test_a_contest_that_is_there_takes_only_what_it_lacks():
    cells = make_cells(table(runs(3)), "task")
    grown, rows = with_contest(cells, ("task-01", "full", "accuracy"), ["model-2", "stranger"])
    assert len(grown.value) == len(cells.value) + 1
    assert grown.reach[rows[0]] == cells.reach[rows[0]]
    assert np.isnan(grown.reach[rows[1]])
    assert (grown.contests, grown.groups) == (cells.contests, cells.groups)
    assert [grown.models[m] for m in grown.model[rows]] == ["model-2", "stranger"]


def test_a_candidate_without_outcomes_stands_where_its_published_accuracy_puts_it():
    published = {model: 0.70 + 0.03 * i for i, model in enumerate(MODELS)}
    names = [*MODELS, "worst", "best", "silent"]
    question = asked("new", names, published=published | {"worst": 0.65, "best": 0.9})
    found = estimator(runs(noise=0.05)).forecast(question)
    assert set(found) == {*MODELS, "worst", "best"}
    assert found["worst"].typical < found["model-1"].typical
    assert found["best"].typical > found["model-4"].typical
    assert (found["best"].kind, found["model-4"].kind) == ("uncalibrated_range", "conformal_90")

    alone = AccuracyEstimator(table(runs(noise=0.05))).joint(question)
    wide = dict(zip(alone.models, alone.sd, strict=True))
    assert wide["best"] > wide["model-4"]


def test_the_probe_tells_how_easy_a_task_is():
    frame = runs(20, noise=0.05)
    level = frame.group_by("task").agg(pl.col("value").mean().alias("probe_accuracy"))
    fitted, blind = estimator(frame.join(level, on="task")), estimator(frame)

    def told(of: AccuracyEstimator, **known: float) -> Interval:
        return of.forecast(asked("new", MODELS, **known))["model-3"]

    easy, hard = told(fitted, probe_accuracy=0.9), told(fitted, probe_accuracy=0.5)
    assert easy.low > hard.high
    assert easy.high - easy.low < 0.5 * (told(blind).high - told(blind).low)
    assert told(fitted).typical == pytest.approx(told(blind).typical, abs=0.02)


def scored(frame: pl.DataFrame, **noise: float) -> pl.DataFrame:
    """As if a simple classifier on a candidate's features came as far as it did, but for noise."""
    generator = np.random.default_rng(3)
    value = frame["value"].to_numpy()
    return frame.with_columns(
        **{
            name: np.clip(value - 0.1 + generator.normal(0, spread, len(value)), 0.02, 0.98)
            for name, spread in noise.items()
        }
    )


def test_what_features_tell_of_a_task_says_how_high_candidates_come_on_it():
    frame = scored(runs(20, noise=0.05), score_ridge=0.01)
    fitted = estimator(frame)

    def told(ridge: float | None) -> Interval:
        scores = {} if ridge is None else {"model-3": {"score_ridge": ridge}}
        return fitted.forecast(asked("new", MODELS, scores=scores))["model-3"]

    easy, hard, unknown = told(0.85), told(0.4), told(None)
    assert easy.low > hard.high
    assert easy.high - easy.low < 0.5 * (unknown.high - unknown.low)


def test_what_features_tell_of_candidates_orders_them_anew():
    """On tasks where their order is not that of others."""
    generator = np.random.default_rng(4)
    frame = runs(20, noise=0.0).with_columns(
        value=pl.Series(np.clip(generator.normal(0.6, 0.15, 20 * len(MODELS)), 0.05, 0.95))
    )
    fitted = estimator(scored(frame, score_logme=0.01))
    scores = {model: {"score_logme": 0.2 + 0.1 * n} for n, model in enumerate(reversed(MODELS))}
    found = fitted.forecast(asked("new", MODELS, scores=scores))
    order = sorted(MODELS, key=lambda model: found[model].typical)
    assert order == list(reversed(MODELS))
    silent = fitted.forecast(asked("new", MODELS))
    assert max(i.typical for i in silent.values()) < max(i.typical for i in found.values())


def test_scores_weigh_as_they_do_under_the_recipe():
    """Under one they tell the order, under the other nothing."""
    generator = np.random.default_rng(5)
    telling = scored(runs(20, noise=0.0), score_logme=0.01).with_columns(
        value=pl.Series(np.clip(generator.normal(0.6, 0.15, 20 * len(MODELS)), 0.05, 0.95))
    )
    telling = telling.with_columns(recipe=pl.lit("head_only"), score_logme=pl.col("value"))
    silent = telling.with_columns(recipe=pl.lit("full"), value=telling["value"].shuffle(seed=1))
    fitted = estimator(pl.concat([telling, silent]))
    scores = {model: {"score_logme": 0.1 * n} for n, model in enumerate(MODELS)}

    def spread(recipe: str) -> float:
        told = fitted.forecast(asked("new", MODELS, recipe, scores=scores))
        return told[MODELS[-1]].typical - told[MODELS[0]].typical

    assert spread("head_only") > 0.2
    assert spread("full") < 0.5 * spread("head_only")


def test_scores_of_a_task_with_outcomes_are_those_that_are_told_now():
    frame = scored(runs(3), score_ridge=0.0).drop("score_truth", "score_noise")
    cells = make_cells(table(frame), "task")
    contest = ("task-01", "full", "accuracy")
    scores = {"model-2": {"score_ridge": 0.11}, "stranger": {"score_ridge": 0.99}}
    grown, rows = with_contest(cells, contest, ["model-2", "stranger"], scores=scores)
    assert grown.raw[rows, 0].tolist() == [0.11, 0.99]
    of_contest = grown.contest == grown.contest[rows[0]]
    assert grown.scores[rows[1], 0] == grown.scores[of_contest, 0].max()
    contest_number = grown.contest[rows[0]]
    assert grown.ridge_levels()[contest_number] != cells.ridge_levels()[contest_number]
    kept, _ = with_contest(cells, contest, ["model-2"])
    np.testing.assert_array_equal(kept.raw, cells.raw)


def test_it_does_not_matter_which_others_were_looked_at():
    """Strangers with poor features, or only the best of those that are known."""
    frame = scored(runs(20, noise=0.05), score_ridge=0.01)
    fitted = estimator(frame)
    known = {m: {"score_ridge": 0.60 + 0.03 * n} for n, m in enumerate(MODELS)}
    weak = {f"weak-{n}": {"score_ridge": 0.2} for n in range(10)}

    def told(scores: dict[str, dict[str, float]]) -> float:
        question = asked("new", [*MODELS, *scores], scores=scores)
        return fitted.forecast(question)["model-3"].typical

    everything = told(known)
    assert told(known | weak) == pytest.approx(everything, abs=0.02)
    assert told({"model-3": known["model-3"]}) == pytest.approx(everything, abs=0.05)


def shipped(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(task=SHIPPED + pl.col("task"))


def test_shipped_outcomes_tell_what_own_ones_do_not_and_leave_calibration_alone():
    frame = runs(20, noise=0.05)
    found = estimator(shipped(frame)).forecast(asked("new", MODELS))
    assert [i.typical for i in found.values()] == sorted(i.typical for i in found.values())
    assert {i.kind for i in found.values()} == {"uncalibrated_range"}

    own = runs(LEAST_GROUPS - 1, noise=0.05, seed=1)
    few = estimator(pl.concat([shipped(frame), own]))
    assert few.deviations == float("inf")
    enough = runs(LEAST_GROUPS, noise=0.05, seed=1)
    assert estimator(pl.concat([shipped(frame), enough])).deviations < 10


def test_one_run_a_task_leaves_the_order_of_candidates_to_shipped_ones():
    own = runs(12, seed=3).filter(
        pl.col("model") == pl.format("model-{}", pl.col("task").str.slice(5).cast(pl.Int64) % 6)
    )
    assert len(own) == 12
    found = estimator(pl.concat([shipped(runs(20, noise=0.05)), own])).forecast(
        asked("new", MODELS)
    )
    reach = [found[name].typical for name in sorted(MODELS)]
    assert reach == sorted(reach)
    assert reach[-1] - reach[0] > 0.2


def test_own_outcomes_outweigh_shipped_ones_that_say_the_opposite():
    names = {model: MODELS[-1 - place] for place, model in enumerate(MODELS)}
    reverse = shipped(runs(20, noise=0.05).with_columns(pl.col("model").replace_strict(names)))
    own = runs(6, noise=0.05, seed=1)
    found = estimator(pl.concat([reverse, own])).forecast(asked("new", MODELS))
    assert found["model-5"].typical > found["model-0"].typical


def test_what_was_not_reported_of_a_recipe_is_not_calibrated():
    fitted = estimator(runs(noise=0.05))
    kinds = {
        recipe: fitted.forecast(asked("new", MODELS, recipe))["model-3"].kind
        for recipe in ("full", "head_only")
    }
    assert kinds == {"full": "conformal_90", "head_only": "uncalibrated_range"}


def test_a_candidate_that_ran_on_the_task_may_run_again_a_little_differently():
    frame = runs(noise=0.05)
    seen = table(frame.filter((pl.col("task") == "task-00") & (pl.col("model") == "model-2")))
    found = estimator(frame).forecast(asked("task-00", MODELS, seen=seen))["model-2"]
    assert found.kind == "uncalibrated_range"
    assert found.low < seen.runs["value"][0] < found.high
    assert 0.02 < found.high - found.low < 0.3


def test_intervals_end_where_nothing_is_told_apart():
    frame = runs(noise=0.05).with_columns(value=pl.lit(1.0))
    found = estimator(frame).forecast(asked("new", MODELS))["model-2"]
    assert found.high == 1.0
    none = estimator(frame.with_columns(value=pl.lit(0.0))).forecast(asked("new", MODELS))
    assert none["model-2"].low == 0.0


def test_an_untried_candidate_is_told_beside_those_tried():
    published = dict.fromkeys(MODELS, 0.7) | {"other": 0.8}
    joint = estimator(runs()).joint(asked("new", [*MODELS, "other"], published=published))
    assert joint.models == (*MODELS, "other")
    assert list(joint.calibrated) == [True] * len(MODELS) + [False]


@pytest.mark.parametrize("n_images", [10, 20, 100])
def test_a_run_on_few_images_is_trusted_as_far_as_they_tell(n_images):
    fitted = estimator(runs(noise=0.3))
    generator = np.random.default_rng(0)
    inside, blind = [], []
    for _, rows in runs(150, noise=0.3, seed=9).group_by("task", maintain_order=True):
        truth = dict(rows.select("model", "value").iter_rows())
        value = generator.binomial(n_images, truth["model-3"]) / n_images
        one = rows.filter(pl.col("model") == "model-3")
        one = one.with_columns(task=pl.lit("new"), value=pl.lit(value))
        for held, run in ((inside, one.with_columns(n_held_out=n_images)), (blind, one)):
            told = fitted.forecast(asked("new", MODELS, seen=table(run)))
            held.append([told[name].low <= truth[name] <= told[name].high for name in MODELS])
    assert np.mean(inside) == pytest.approx(0.9, abs=0.06)
    assert np.mean(inside, axis=0).min() > 0.8
    assert np.mean(blind) < np.mean(inside)


def test_a_run_of_the_task_counts_once_whether_the_fit_knows_it_or_not():
    frame = runs(noise=0.05)
    run = frame.filter((pl.col("task") == "task-00") & (pl.col("model") == "model-2"))
    run = run.with_columns(task=pl.lit("new"), value=pl.lit(0.05))
    question = asked("new", MODELS, seen=table(run))
    apart = estimator(frame).joint(question)
    within = AccuracyEstimator(
        table(pl.concat([frame, run]).drop("score_truth", "score_noise")),
        estimator(frame).deviations,
    ).joint(question)
    assert within.mean == pytest.approx(apart.mean, abs=1e-9)
    assert within.sd == pytest.approx(apart.sd, abs=1e-9)
