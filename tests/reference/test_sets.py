from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import numpy as np
from PIL import Image

from app.embedding.archive import ArchiveLimits
from app.embedding.dataset import read_labelled_images
from app.reference import pictures
from app.reference.sets import Picture, Pool, union


def pool_of(*facts: dict[str, str]) -> Pool:
    """One small grey picture, unlike the others, for each of these facts."""
    return Pool(
        "somewhere 1.0",
        "CC0-1.0",
        ("squares", "grey"),
        tuple(
            Picture(f"picture {i}", pictures.from_grey(np.full((8, 8), i)), known)
            for i, known in enumerate(facts)
        ),
    )


def named(count: int, **facts: str) -> list[dict[str, str]]:
    return [dict(facts)] * count


def test_a_question_takes_the_same_pictures_whatever_order_they_come_in() -> None:
    pool = pool_of(*named(20, kind="a"), *named(20, kind="b"))
    shuffled = replace(pool, pictures=pool.pictures[::-1])
    asked = pool.ask("kinds", "kind", question="kind", per_class=7)
    assert asked.images == shuffled.ask("kinds", "kind", question="kind", per_class=7).images
    assert Counter(label for label, _ in asked.images) == {"a": 7, "b": 7}
    assert asked.tags == ("squares", "grey", "kind")


def test_labels_with_too_few_images_and_pictures_without_the_fact_are_left_out() -> None:
    pool = pool_of(*named(6, kind="a"), *named(5, kind="b"), *named(4, kind="rare"), {})
    asked = pool.ask("kinds", "kind", question="kind")
    assert Counter(label for label, _ in asked.images) == {"a": 6, "b": 5}


def test_a_rare_label_leaves_its_picture_the_other_labels() -> None:
    pool = pool_of(*named(5, kind="a|b"), {"kind": "a|rare"}, {"kind": "rare"})
    asked = pool.ask("kinds", "kind", question="kind", label_kind="multi_label")
    assert Counter(label for label, _ in asked.images) == {"a|b": 5, "a": 1}


def test_a_picture_repeated_byte_by_byte_counts_once() -> None:
    pool = pool_of(*named(6, kind="a"))
    twice = union([pool, replace(pool, pictures=pool.pictures[:2])], pool.tags)
    assert len(twice.ask("kinds", "kind", question="kind").images) == 6


def test_where_keeps_the_pictures_whose_facts_fit() -> None:
    pool = pool_of(*named(3, kind="a", size="big"), *named(3, kind="b", size="big"), {})
    assert len(pool.where(kind="a").pictures) == 3
    assert len(pool.where(kind=("a", "b"), size="big", most=4).pictures) == 4
    assert pool.where(kind="c").pictures == ()


def test_extremes_name_the_outer_thirds_and_nothing_between() -> None:
    pool = pool_of(*named(9)).extremes("lightness", pictures.lightness, "dark", "light")
    assert [picture.facts.get("lightness") for picture in pool.pictures] == (
        ["dark"] * 3 + [None] * 3 + ["light"] * 3
    )


def test_varied_tells_what_was_done_to_each_picture() -> None:
    pool = pool_of(*named(12)).varied(
        "paper", {"white": lambda data: data, "black": pictures.inverted}
    )
    ways = {picture.facts["paper"] for picture in pool.pictures}
    assert ways == {"white", "black"}
    for i, picture in enumerate(pool.pictures):
        expected = i if picture.facts["paper"] == "white" else 255 - i
        assert np.asarray(pictures.opened(picture.data))[0, 0, 0] == expected


def test_mosaics_are_labelled_with_what_they_show() -> None:
    pool = pool_of(*named(100, kind="dark"), *named(100, kind="light"))
    mosaics = pool.mosaics("kind", count=40, tile=8)
    for picture in mosaics.pictures:
        pixels = np.asarray(Image.open(io.BytesIO(picture.data)))[4::8, 4::8, 0].ravel()
        shown = {"dark" if value < 100 else "light" for value in pixels if value < 200}
        assert picture.facts["kind"] == "|".join(sorted(shown))
    assert {picture.facts["kind"] for picture in mosaics.pictures} == {
        "dark",
        "dark|light",
        "light",
    }


def test_the_archive_of_a_set_is_read_as_that_set() -> None:
    pool = pool_of(*named(5, kind="a, with comma"), *named(5, kind="b"))
    asked = pool.ask("kinds", "kind", question="kind")
    images, report = read_labelled_images(
        [asked.archive()],
        size=16,
        label_kind="auto",
        limits=ArchiveLimits(),
        max_image_pixels=10_000,
    )
    assert images.classes == ("a, with comma", "b")
    assert images.label_kind == "single_label"
    assert report.summary()["used"] == 10


def test_the_digest_follows_labels_and_images_but_not_the_name() -> None:
    pool = pool_of(*named(5, kind="a"), *named(5, kind="b"))
    asked = pool.ask("kinds", "kind", question="kind")
    assert replace(asked, name="other", licence="MIT").digest == asked.digest
    other_label = tuple(("c", data) for _, data in asked.images)
    assert replace(asked, images=other_label).digest != asked.digest
    assert replace(asked, images=asked.images[1:]).digest != asked.digest
