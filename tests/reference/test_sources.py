from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from app.reference import build, digits
from app.reference.sets import LabelledSet


def labels_of(labelled: LabelledSet) -> Counter[str]:
    return Counter(part for label, _ in labelled.images for part in label.split("|"))


def check(labelled: LabelledSet) -> None:
    labels = labels_of(labelled)
    assert 40 <= len(labelled.images) <= 200, labelled.name
    assert 2 <= len(labels) <= 26, labelled.name
    assert min(labels.values()) >= 5, labelled.name
    assert len({data for _, data in labelled.images}) == len(labelled.images), labelled.name
    assert labelled.source and labelled.licence
    assert len(labelled.licence) <= 200
    assert len(labelled.tags) >= 3


def test_the_digits_need_no_network_and_are_the_same_every_time(tmp_path: Path) -> None:
    first, again = (list(digits.sets(tmp_path)) for _ in range(2))
    assert first == again
    assert list(tmp_path.iterdir()) == []
    for labelled in first:
        check(labelled)
    by_name = {labelled.name: labelled for labelled in first}
    assert labels_of(by_name["digits-loops"])["two loops"] < 20  # imbalanced, as digits are
    a, b = by_name["digits-a"], by_name["digits-b"]
    assert not {data for _, data in a.images} & {data for _, data in b.images}


@pytest.mark.slow
def test_every_source_gives_sets_worth_embedding(tmp_path: Path) -> None:
    sets = [labelled for source in build.SOURCES for labelled in source(tmp_path)]
    assert len(sets) >= 70
    assert len({labelled.name for labelled in sets}) == len(sets)
    assert sum(labelled.label_kind == "multi_label" for labelled in sets) >= 2
    for labelled in sets:
        check(labelled)
