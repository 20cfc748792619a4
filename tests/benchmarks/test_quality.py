from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.embedding.distance import one_to_many
from app.embedding.fisher import estimate_fisher
from app.embedding.head import Head
from app.embedding.parts import Population
from app.embedding.probe import load_probe
from app.embedding.vector import RANK, Noise
from app.reference import pictures
from app.reference.sets import Picture, Pool
from benchmarks import embedding_quality
from benchmarks.quality import measures, published, questions, tasks
from benchmarks.quality.changes import CHANGES, changed_sets
from benchmarks.quality.figures import Collection, best, comparisons, mean_feature_distances
from benchmarks.quality.methods import METHODS, Cells, Workshop
from benchmarks.quality.published import (
    balanced_rows,
    batch_mean_fisher,
    published_vector,
    training_probe,
)
from benchmarks.quality.questions import QuestionedPool, TwinTask
from benchmarks.quality.report import report
from benchmarks.quality.tasks import QualitySet, label_sets, spread, twin_sets
from tests.probes import coloured_noise, probe_card

SHADES = {"dark": 40, "grey": 120, "light": 200}


def shades(per_shade: dict[str, int], *, styles: tuple[str, ...] = ("plain",)) -> Pool:
    """Noisy grey pictures; a subject is drawn once in each style."""
    generator = np.random.default_rng(5)
    drawn = []
    for shade, count in per_shade.items():
        for number in range(count):
            values = SHADES.get(shade, 90) + generator.normal(0, 20, (16, 16))
            for style in styles:
                shown = values if style == styles[0] else values.T
                facts = {"shade": shade, "style": style, "subject": f"{shade} {number}"}
                data = pictures.from_grey(np.clip(shown, 0, 255))
                drawn.append(Picture(f"{shade} {number} {style}", data, facts))
    return questions.halved(Pool("here", "none", ("shades",), tuple(drawn)), "shade")


def twin(
    name: str,
    first: Pool,
    second: Pool | None = None,
    fact: str = "shade",
    source: str = "squares",
) -> TwinTask:
    return questions.twin(
        name,
        first,
        second,
        images="squares",
        question="which shade",
        path=("drawn", source, "all", "all", name),
        fact=fact,
    )


def by_size(sets: list[QualitySet], half: str) -> dict[int, QualitySet]:
    return {s.size: s for s in sets if s.half == half}


def test_a_rival_as_near_as_the_twin_counts_as_nearer() -> None:
    distances = np.array([[1.0, 2.0, 3.0], [0.5, 1.0, 1.0], [9.0, 9.0, 0.0]])
    found = measures.find_twins(distances)
    assert found.ranks.tolist() == [[0, 1], [2, 0], [0, 0]]
    assert found.first == pytest.approx(4 / 6)
    assert found.mean_rank == pytest.approx(3 / 6)
    assert found.of(np.array([True, False, True])).first == pytest.approx(3 / 4)


def test_only_the_named_rivals_compete() -> None:
    distances = np.array([[1.0, 0.5, 2.0], [3.0, 1.0, 0.1], [3.0, 3.0, 1.0]])
    pools = np.array(["x", "x", "y"])
    found = measures.find_twins(distances, pools[:, None] == pools[None, :])
    assert found.ranks.tolist() == [[1, 0], [0, 1], [0, 0]]


def test_each_half_ranks_its_rivals_by_its_own_distances() -> None:
    from_a = np.array([[1.0, 2.0], [2.0, 1.0]])
    from_b = np.array([[1.0, 0.5], [2.0, 1.0]])
    assert measures.find_twins(from_a, back=from_b).ranks.tolist() == [[0, 0], [0, 1]]


def test_weights_are_chosen_without_the_source_they_are_judged_on() -> None:
    """Each source's tasks are found by one part, and the other source's by the other."""
    generator = np.random.default_rng(0)
    sources = ["a"] * 6 + ["b"] * 6
    noise = generator.random((2, 12, 12)) + 1
    for part, rows in enumerate((slice(0, 6), slice(6, 12))):
        noise[part, rows, rows] -= 5 * np.eye(6)  # the twin is nearest
        noise[part, np.arange(12)[6 * (1 - part) :][:6], np.arange(12)[6 * (1 - part) :][:6]] += 9
    parts = [(each, each) for each in noise]
    either = [(1.0, 0.0), (0.0, 1.0)]
    assert measures.weighed_elsewhere(parts, sources, either).first == 0
    assert measures.weighed_elsewhere(parts, ["a", "b"] * 6, either).first == 0.5


def test_a_task_is_told_where_guessing_would_hardly_be_right_as_often() -> None:
    # of 40 coin tosses, 28 or more heads come with probability 0.0083, 27 or more with 0.0192
    assert measures.is_told(28 / 40, 40, 2)
    assert not measures.is_told(27 / 40, 40, 2)
    assert measures.is_told(27 / 40, 40, 4)


def test_the_interval_is_that_of_the_share_and_closes_where_all_tasks_agree() -> None:
    generator = np.random.default_rng(0)
    ranks = (generator.random((200, 1)) > 0.7).astype(float).repeat(2, axis=1)
    found = measures.Retrieval(ranks)
    low, high = found.first_interval
    error = np.sqrt(0.7 * 0.3 / 200)
    assert low < found.first < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.25)
    assert measures.Retrieval(np.zeros((5, 2))).first_interval == (1.0, 1.0)


def test_nine_in_ten_filters_of_two_samples_differ_by_what_their_errors_allow() -> None:
    generator = np.random.default_rng(0)
    truth, errors = generator.lognormal(size=20_000), (0.05, 0.12)
    one, other = (truth * np.exp(generator.normal(0, error, 20_000)) for error in errors)
    share = measures.covered(one, one * errors[0], other, other * errors[1])
    assert share == pytest.approx(0.9, abs=0.01)
    one[::2] = other[::3] = 0  # dead filters say nothing
    share = measures.covered(one, one * errors[0], other, other * errors[1])
    assert share == pytest.approx(0.9, abs=0.01)
    assert measures.covered(truth, truth * 0, 1.1 * truth, truth * 0) == 0


def test_tree_distance_counts_the_levels_up_to_the_common_ancestor() -> None:
    paths = [("drawn", "emoji", "food"), ("drawn", "emoji", "faces"), ("written", "digits", "x")]
    assert measures.tree_distances(paths).tolist() == [[0, 1, 3], [1, 0, 3], [3, 3, 0]]


def test_a_distance_that_follows_the_taxonomy_agrees_with_it_and_a_random_one_does_not() -> None:
    paths = [(a, b, c) for a in "xy" for b in "uvw" for c in "st"]
    tree = measures.tree_distances(paths)
    exact = measures.agreement(np.exp(tree), tree, permutations=199)
    assert exact.rho == pytest.approx(1.0)
    assert exact.p == pytest.approx(1 / 200)
    noise = np.random.default_rng(1).random(tree.shape)
    random = measures.agreement(noise, tree, permutations=199)
    assert abs(random.rho) < 0.3
    assert random.p > 0.02


def test_spearman_is_that_of_ranks_with_ties_at_their_mean() -> None:
    x = np.array([1.0, 2.0, 2.0, 10.0])
    # ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4: covariance 4.5, norms sqrt(4.5) and sqrt(5)
    assert measures.spearman(x, np.array([0.0, 5.0, 3.0, 6.0])) == pytest.approx(np.sqrt(0.9))
    assert np.isnan(measures.spearman(x, np.ones(4)))


def test_stability_compares_the_way_to_the_original_with_that_to_the_twin() -> None:
    to_originals = np.array([[0.1, 0.5, 0.9], [0.7, 0.2, 0.2]])
    found = measures.stability(to_originals, [0, 1], np.array([0.4, 0.1]))
    assert found.shares == pytest.approx([0.25, 2.0])
    assert found.found.tolist() == [True, False]


def test_halves_share_no_subject_and_smaller_sets_lie_in_larger_ones() -> None:
    pool = shades({"dark": 110, "light": 104}, styles=("plain", "turned"))
    plain, turned = pool.where(style="plain"), pool.where(style="turned")
    sets = list(twin_sets([twin("shades", plain, turned)]))
    a, b = by_size(sets, "A"), by_size(sets, "B")
    assert set(a) == set(b) == {10, 20, 50}
    for size in a:
        assert not set(a[size].subjects) & set(b[size].subjects)
        for labelled in (a[size], b[size]):
            labels = Counter(label for label, _ in labelled.images.images)
            assert labels == {"dark": size, "light": size}
        assert a[size].kind == b[size].kind == "other-style"
    for half in (a, b):
        assert set(half[10].images.images) < set(half[20].images.images)
        assert set(half[20].images.images) < set(half[50].images.images)


def test_a_class_counts_only_with_enough_images_in_both_halves() -> None:
    sets = list(twin_sets([twin("shades", shades({"dark": 40, "grey": 39, "light": 60}))]))
    assert {s.size for s in sets} == {10, 20}
    assert {s.classes for s in sets} == {("dark", "light")}


def test_a_task_with_one_class_left_does_not_exist() -> None:
    assert list(twin_sets([twin("shades", shades({"dark": 60, "light": 38}))])) == []


def test_at_most_ten_classes_are_asked_for_the_same_at_every_size() -> None:
    pool = shades({f"shade {i}": 44 for i in range(14)})
    sets = list(twin_sets([twin("many", pool)]))
    assert {len(s.classes) for s in sets} == {10}
    assert len({s.classes for s in sets}) == 1


def test_every_question_on_a_pool_is_asked_of_the_same_balanced_images() -> None:
    pool = shades({"dark": 100, "grey": 100, "light": 100}, styles=("plain", "turned"))
    asked = {"shade": "which shade", "style": "drawing style"}
    path = ("drawn", "squares", "all", "all", "all")
    sets = list(label_sets([QuestionedPool("squares", path, pool, asked)]))
    assert {s.task for s in sets} == {"squares-shade", "squares-style", "squares-random"}
    for half in ("A", "B"):
        for size in (10, 20):
            some = [s for s in sets if (s.half, s.size) == (half, size)]
            images = [{data for _, data in s.images.images} for s in some]
            assert images[0] == images[1] == images[2]
            assert len(images[0]) == 3 * size
            for s in some:
                counts = Counter(label for label, _ in s.images.images).values()
                assert max(counts) - min(counts) <= 2
    a, b = (next(s for s in sets if s.half == half) for half in ("A", "B"))
    assert not set(a.subjects) & set(b.subjects)


def test_two_drawings_of_a_subject_lie_in_the_same_half() -> None:
    pool = shades({"dark": 30, "light": 30}, styles=("plain", "turned"))
    halves = {(p.facts["subject"], p.facts["half"]) for p in pool.pictures}
    assert len(halves) == 60


def test_pictures_that_look_alike_count_once() -> None:
    pool = shades({"dark": 4})
    again = replace(pool.pictures[0], key="another name", data=pool.pictures[0].data)
    assert len(questions.distinct(replace(pool, pictures=(*pool.pictures, again))).pictures) == 4


def test_some_tasks_are_spread_over_the_sources() -> None:
    every = [(f"{source} {i}", source) for source in ("x", "y", "z") for i in range(9)]
    some = spread(every, 6, "seed")
    assert Counter(name[0] for name in some) == {"x": 2, "y": 2, "z": 2}
    assert some == spread(reversed(every), 6, "seed") != spread(every, 6, "other seed")


def test_quick_sets_are_digits_in_disjoint_halves() -> None:
    sets = tasks.few_sets()
    assert {s.path[1] for s in sets} == {"digits"}
    assert len({s.images.digest for s in sets}) == len(sets) == 22
    for name in {s.task for s in sets}:
        a, b = (next(s for s in sets if s.task == name and s.half == half) for half in ("A", "B"))
        assert not set(a.subjects) & set(b.subjects)


def test_balanced_rows_make_every_class_as_likely() -> None:
    labels = np.repeat([0, 1, 2], [2, 20, 78])
    drawn = labels[balanced_rows(labels, 6_000, np.random.default_rng(0))]
    assert np.bincount(drawn) / 6_000 == pytest.approx(np.full(3, 1 / 3), abs=0.03)


def test_the_published_procedure_repeats_and_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    probe = load_probe(probe_card(tmp_path), "cpu")
    training = training_probe(probe)
    images = coloured_noise(24, 3)
    features = probe.features(images.pixels).numpy()
    normalised = probe.normalise(images.pixels)
    before = training.network(normalised)
    first, again = (
        published_vector(images, training, features, draws=40, seed=7) for _ in range(2)
    )
    other = published_vector(images, training, features, draws=40, seed=8)
    assert first.shape == (probe.dim,)
    assert (first >= 0).all()
    assert first.sum() > 0
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(training.network(normalised), before)
    assert not any(weight.requires_grad for weight in training.network.parameters())


def test_squares_of_batch_means_are_the_fisher_over_the_batch_size(tmp_path: Path) -> None:
    # Labels drawn from p make the expected gradient zero, so of a batch's squared mean only the
    # images' own squares are left, over the batch size. A transformer has no batch statistics.
    probe = load_probe(probe_card(tmp_path, "test_vit"), "cpu")
    images = coloured_noise(8, 2)
    images = replace(images, labels=np.repeat([0, 1], 4))
    generator = np.random.default_rng(3)
    weight = generator.normal(0, 0.3, (2, probe.n_features))
    head = Head("single_label", weight, np.zeros(2), 1.0, np.ones(2), 1.0, None, None)
    features = probe.features(images.pixels).numpy()
    exact = estimate_fisher(
        images,
        probe,
        head,
        features,
        estimator="exact",
        draws=2,
        tolerance=None,
        seed=0,
        batch_size=16,
        on_batch=lambda _: None,
    ).vector
    found = batch_mean_fisher(
        images,
        training_probe(probe),
        torch.from_numpy(weight.astype(np.float32)),
        torch.zeros(2),
        draws=200 * published.BATCH_SIZE,
        generator=generator,
    )
    scaled = found * published.BATCH_SIZE
    assert scaled.sum() == pytest.approx(exact.sum(), rel=0.15)
    assert np.corrcoef(scaled, exact)[0, 1] > 0.98


def test_a_cell_of_other_settings_or_cut_short_is_not_there(tmp_path: Path) -> None:
    cells, method = Cells(tmp_path), METHODS["mc-fixed"]
    [labelled, *_] = twin_sets([twin("shades", shades({"dark": 50, "light": 50}))])
    assert cells.load(method, labelled) is None
    cells.save(method, labelled, {"vector": np.arange(4.0), "penalty": np.float64(2)})
    found = cells.load(method, labelled)
    assert found is not None
    assert found["vector"].tolist() == [0, 1, 2, 3]
    assert cells.load(replace(method, draws=9), labelled) is None
    path = cells.path(method, labelled)
    path.write_bytes(path.read_bytes()[:-40])
    assert cells.load(method, labelled) is None


def test_changes_keep_the_labels_and_the_size() -> None:
    pool = shades({"dark": 40, "light": 40})
    [original, *changed] = [
        s
        for s in _with_changes(twin_sets([twin("shades", pool)]))
        if s.half == "A" and s.size == 20
    ]
    labels = [label for label, _ in original.images.images]
    assert [s.question for s in changed] == list(CHANGES)
    for s in changed:
        assert [label for label, _ in s.images.images] == labels
        assert tasks.read(s.images, 16).pixels.shape == (40, 16, 16, 3)
        assert s.images.digest != original.images.digest


def _with_changes(sets: object) -> list[QualitySet]:
    found = list(sets)  # type: ignore[call-overload]
    return [*found, *changed_sets(found)]


def test_the_best_of_several_distances_is_taken_figure_by_figure() -> None:
    rows = [
        {"distance": "x", "twin_first_20": 0.5, "mean_rank_20": 1.0, "tasks_20": 3},
        {"distance": "y", "twin_first_20": 0.4, "mean_rank_20": 0.5, "tasks_20": 3},
    ]
    found = best(rows)
    assert (found["twin_first_20"], found["mean_rank_20"]) == (0.5, 0.5)


def test_centred_correlation_takes_off_what_all_sets_share() -> None:
    shift = np.array([100.0, 100.0, 0.0])
    rows = [{"mean_feature": shift + v} for v in np.eye(3)]
    columns = [{"mean_feature": shift + 2 * v} for v in np.eye(3)]
    distances = mean_feature_distances()
    centred, cosine = (distances[name] for name in ("centred correlation", "cosine"))
    assert (centred(rows, columns, []).argmin(axis=1) == [0, 1, 2]).all()
    assert cosine(rows, columns, []).max() < 0.01


def made_up(tmp_path: Path) -> Collection:
    """Two tasks of each of two sources, and cells of `ours` in which halves are nearly alike.

    The tasks of the source `lines` are answered by guessing.
    """
    sets = [
        *twin_sets(
            twin(f"{source} {i}", shades(dict.fromkeys(classes, 40)), source=source)
            for source, i, classes in (
                ("squares", 0, ("dark", "grey")),
                ("squares", 1, ("dark", "light")),
                ("lines", 0, ("grey", "light")),
                ("lines", 1, ("dark", "grey", "light")),
            )
        )
    ]
    cells, generator = Cells(tmp_path), np.random.default_rng(2)
    bases = {s.task: generator.lognormal(size=(2, 60)) for s in sets}
    for s in sets:
        vector, domain = bases[s.task] * generator.lognormal(0, 0.1, (2, 60))
        axes = np.outer(np.ones(RANK), vector)
        cell = {
            "vector": vector,
            "domain": domain,
            "mean_feature": vector,
            "draw_error": 0.1 * vector,
            "sampling_error": 0.1 * vector,
            "discriminants": axes * np.arange(1, RANK + 1)[:, None],
        }
        variance = 60 * (0.1 / np.log(2)) ** 2
        noise = Noise({"cosine": 0.01}, label=2 * variance, domain=variance)
        cell["noise"] = np.str_(json.dumps(asdict(noise)))
        counts = {"n_images": len(s.images.images), "n_classes": len(s.classes)}
        right = 0.95 if s.path[1] == "squares" else 1 / len(s.classes)
        cells.save(METHODS["ours"], s, {**cell, **counts, "cv_accuracy": np.float64(right)})
    return Collection(tuple(sets), (), cells, 1e-6)


def test_nothing_of_the_querys_source_centres_it(tmp_path: Path) -> None:
    collection = made_up(tmp_path)
    default = comparisons(collection)["ours"][0]
    twins = collection.twins(default, 20)
    assert twins is not None
    assert default.name == "ours, combined"

    def rows(sets: list[QualitySet]) -> np.ndarray:
        found = [collection.cells.load(METHODS["ours"], s) or {} for s in sets]
        names = ("vector", "domain", "discriminants")
        return np.stack([np.concatenate([cell[name].ravel() for name in names]) for cell in found])

    every = [s for s in collection.sets if s.size == 20]
    halves = {half: [s for s in every if s.half == half] for half in ("A", "B")}
    assert [s.task for s in halves["A"]] == [task.task for task in twins.tasks]
    for half, other, seen in (("A", "B", twins.distances), ("B", "A", twins.back.T)):
        for i, query in enumerate(halves[half]):
            strangers = rows([s for s in every if s.path[1] != query.path[1]])
            assert len(strangers) == 4
            expected = one_to_many(
                rows([query])[0],
                rows(halves[other]),
                "combined",
                epsilon=1e-6,
                population=Population.of(strangers[:, :120].astype(np.float32), 1e-6),
            )
            assert seen[i] == pytest.approx(expected, abs=1e-5)


def test_tasks_that_the_probe_only_guesses_are_left_out_of_the_told_ones(tmp_path: Path) -> None:
    collection = made_up(tmp_path)
    result = report(collection, permutations=9)
    found, floors = result["ours"], result["noise_floor"]["20"]
    assert found["distance"] == "ours, combined"
    assert 0.5 < floors["floor"] / floors["twin_distance"] < 1.5  # halves differ by noise alone
    assert (found["tasks_20"], found["tasks_20_told"]) == (4, 2)
    assert found["twin_first_20"] == found["twin_first_20_told"] == 1.0


def test_one_source_alone_has_nothing_to_be_centred_on(tmp_path: Path) -> None:
    collection = made_up(tmp_path)
    squares = tuple(s for s in collection.sets if s.path[1] == "squares")
    rows = comparisons(replace(collection, sets=squares))["ours"]
    assert rows[0].name == "ours, cosine"
    assert not any(row.centred for row in rows)


@pytest.mark.slow
def test_cells_are_made_once_by_any_shard_and_become_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    styles = ("plain", "turned")
    pool = shades({"dark": 60, "light": 60}, styles=styles)
    plain, turned = (pool.where(style=style) for style in styles)
    path = ("drawn", "squares", "all", "all", "all")
    questioned = QuestionedPool("squares", path, pool, {"shade": "which shade"})
    sets = (
        *twin_sets(
            [twin("shades", plain, turned), twin("styles", pool, fact="style", source="lines")]
        ),
        *label_sets([questioned]),
    )
    changed = tuple(s for s in changed_sets(sets) if s.question == "jpeg-75")
    probe = load_probe(probe_card(tmp_path), "cpu")
    cells = Cells(tmp_path / "cells")
    workshop = Workshop(probe, training_probe(probe))
    methods = [METHODS[name] for name in ("ours", "published", "mc-fixed")]
    work = embedding_quality.planned((*sets, *changed), methods, published_tasks=0)

    for shard in (0, 1):
        embedding_quality.make_cells(work[shard::2], workshop, cells)
    made = sorted(cells.root.rglob("*.npz"))
    assert len(made) == len(work) == len({cells.path(*item) for item in work})
    capsys.readouterr()
    embedding_quality.make_cells(work, workshop, cells)
    assert capsys.readouterr().out == ""

    found = report(Collection(sets, changed, cells, probe.card.epsilon), permutations=19)
    wanted = {"twin_first_20", "twin_first_10", "mean_rank_20", "taxonomy_rho"}
    wanted |= {"label_twin_first_20", "label_twin_first_10"}
    for method in ("ours", "published", "mean_feature"):
        assert wanted <= found[method].keys()
        assert 0 <= found[method]["twin_first_20"] <= 1
    assert found["ours"]["distance"] == "ours, combined"
    assert {"tasks_20_told", "label_tasks_20_told"} <= found["published"].keys()
    assert found["ours"]["tasks_20"] == found["ours"]["label_tasks_20"] == 2
    assert found["ours"]["jpeg_75_found"] == 1.0
    assert "twin_first_20" in found["two_by_two"]["mc-fixed"]
    assert "twin_first_20" not in found["two_by_two"]["mc-chosen"]
    told = capsys.readouterr().out
    assert "published, cosine" in told
    assert "Missed by ours" in told
