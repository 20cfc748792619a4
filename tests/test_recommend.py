from __future__ import annotations

from random import Random

from app.cost.predictor import Estimate, Interval
from app.recommend import rank


def made(
    name: str,
    usd: float = 1.0,
    *,
    top1: float | None = None,
    difficulty: float | None = None,
    accuracy: float | None = None,
    fits: bool = True,
    seconds: float = 60.0,
) -> Estimate:
    some = Interval(1.0, 1.0, 1.0)
    return Estimate(
        candidate=name,
        recipe="full",
        device="gpu",
        accuracy=None if accuracy is None else Interval(accuracy, accuracy, accuracy),
        top1_percent=top1,
        difficulty=difficulty,
        ridge_accuracy=None,
        steps=some,
        seconds=Interval(seconds / 2, seconds, seconds * 2),
        money_usd=Interval(usd / 2, usd, usd * 2),
        energy_wh=some,
        memory_mib=some,
        fits=fits,
        fitting_batch_size=8 if fits else 4,
        inference_seconds=some,
        counted={},
        timed=False,
        basis=[],
    )


def order(estimates, **asked) -> list[str]:
    return [ranked.estimate.candidate for ranked in rank(estimates, **asked)]


def frontier(estimates) -> set[str]:
    return {ranked.estimate.candidate for ranked in rank(estimates) if ranked.frontier}


def test_what_fits_comes_before_what_does_not():
    assert order([made("strong", top1=90, fits=False), made("weak", top1=60)]) == ["weak", "strong"]


def test_what_does_not_fit_says_the_batch_that_would():
    assert "a batch of 4 would" in rank([made("a", top1=70, fits=False)])[0].reason


def test_accuracy_outweighs_difficulty_and_difficulty_outweighs_top1():
    rows = [made("prior", top1=90), made("near", difficulty=0.2), made("known", accuracy=0.5)]
    assert order(rows) == ["known", "near", "prior"]


def test_lower_difficulty_comes_first_also_below_zero():
    assert order([made("far", difficulty=0.3), made("near", difficulty=-0.1)]) == ["near", "far"]


def test_higher_top1_comes_first_and_the_unknown_last():
    rows = [made("unknown"), made("weak", top1=70), made("strong", top1=80)]
    assert order(rows) == ["strong", "weak", "unknown"]
    assert [ranked.evidence for ranked in rank(rows)] == ["top1_percent", "top1_percent", "none"]


def test_equal_strength_puts_the_cheaper_first_then_the_name():
    rows = [made("b", 1.0, top1=70), made("a", 2.0, top1=70), made("c", 1.0, top1=70)]
    assert order(rows) == ["b", "c", "a"]


def test_the_order_does_not_depend_on_the_order_asked():
    rows = [made(f"m{i}", usd=i % 3, top1=70 + i % 4) for i in range(20)]
    shuffled = rows.copy()
    Random(0).shuffle(shuffled)
    assert rank(shuffled) == rank(rows)


def test_the_frontier_leaves_out_what_a_cheaper_one_matches():
    rows = [
        made("cheap", 1, top1=70),
        made("wasteful", 2, top1=70),
        made("dear", 3, top1=80),
        made("beaten", 4, top1=79),
    ]
    assert frontier(rows) == {"cheap", "dear"}


def test_at_one_price_only_the_strongest_is_on_the_frontier():
    assert frontier([made("weak", 1, top1=70), made("strong", 1, top1=80)]) == {"strong"}


def test_equals_share_the_frontier():
    assert frontier([made("a", 1, top1=70), made("b", 1, top1=70)]) == {"a", "b"}


def test_time_decides_where_nothing_is_paid():
    rows = [made("fast", 0, top1=70, seconds=10), made("slow", 0, top1=70, seconds=20)]
    assert frontier(rows) == {"fast"}


def test_what_does_not_fit_neither_stands_on_the_frontier_nor_pushes_others_off():
    assert frontier([made("big", 1, top1=90, fits=False), made("small", 2, top1=70)]) == {"small"}


def test_different_evidence_is_not_compared():
    assert frontier([made("near", 2, difficulty=0.1), made("prior", 1, top1=90)]) == {
        "near",
        "prior",
    }


def test_the_unknown_stands_on_no_frontier():
    assert frontier([made("unknown", 0.1)]) == set()


def test_budgets_keep_only_what_surely_stays_within_them():
    rows = [made("a", 1.0, top1=70, seconds=10), made("b", 2.0, top1=80, seconds=5)]
    assert order(rows, budget_usd=2.0) == ["a"]
    assert order(rows, budget_seconds=10.0) == ["b"]
    assert order(rows, budget_usd=0.1) == []


def test_k_cuts_the_list_but_the_frontier_knows_all():
    rows = [made("dear", 2, top1=80), made("cheap", 1, top1=80)]
    first = rank(rows, k=1)
    assert [(ranked.rank, ranked.estimate.candidate) for ranked in first] == [(1, "cheap")]
    assert first[0].frontier
