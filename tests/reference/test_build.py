from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.catalogue import ProbeCard, get_card
from app.embedding.probe import load_probe
from app.errors import Cancelled
from app.reference import build, digits
from app.reference.sets import LabelledSet
from app.settings import shared_directory
from app.store.reference import load_reference
from app.store.session import Database
from app.store.tables import Task


@pytest.fixture(scope="module")
def card() -> ProbeCard:
    card = get_card(shared_directory("models"), ProbeCard, "tf_efficientnet_lite0")
    return card.model_copy(update={"input_size": 32})


def two_small_sets(cache_dir: Path) -> Iterator[LabelledSet]:
    pool = digits.digits().where(digit=("3", "8"), most=16)
    yield pool.ask("threes-and-eights", "digit", question="which-digit", per_class=6)
    yield (
        digits.digits()
        .where(digit=("0", "1"), most=60)
        .mosaics("digit", count=12, tile=8)
        .ask("mosaics", "digit", question="which-digit", label_kind="multi_label")
    )


def built(card: ProbeCard, root: Path, **options: Any) -> Path:
    return build.build_library(
        card, models_dir=root, cache_dir=root / "cache", sources=[two_small_sets], **options
    )


def test_a_library_is_built_and_the_service_serves_its_tasks(
    card: ProbeCard, tmp_path: Path
) -> None:
    path = built(card, tmp_path)
    assert path == tmp_path / "reference" / "tf_efficientnet_lite0.npz"
    database = Database(f"sqlite:///{tmp_path / 'tasks.sqlite'}")
    database.migrate(shared_directory("migrations"))
    with database.session() as session:
        assert load_reference(session, tmp_path) == 2
        tasks = {task.name: task for task in session.scalars(select(Task))}
        task = tasks["threes-and-eights"]
        assert (task.n_images, task.n_classes, task.label_kind) == (12, 2, "single_label")
        assert [tag.tag for tag in task.tags] == ["digits", "handwriting", "which-digit"]
        assert tasks["mosaics"].label_kind == "multi_label"
        assert task.embedding is not None
        assert task.embedding.space_id == load_probe(card).space_id
    database.dispose()


def test_a_build_that_was_cut_off_embeds_only_what_is_missing(
    card: ProbeCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = []
    really_embed = build.embed_images

    def counted(images: Any, *args: Any, **kwargs: Any) -> Any:
        embedded.append(len(images.digests))
        return really_embed(images, *args, **kwargs)

    def cut_off(name: str, done: int, total: int) -> None:
        if done == 1:
            raise Cancelled("cancelled", "The build was stopped.", "Start it again.")

    monkeypatch.setattr(build, "embed_images", counted)
    with pytest.raises(Cancelled):
        built(card, tmp_path, on_progress=cut_off)
    assert not (tmp_path / "reference").exists()
    path = built(card, tmp_path)
    assert len(embedded) == 2
    whole = path.read_bytes()
    assert built(card, tmp_path).read_bytes() == whole
    assert len(embedded) == 2
