from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from app.catalogue import ProbeCard, get_card
from app.errors import Conflict, InvalidRequest
from app.settings import shared_directory
from app.store import cards
from app.store.session import Database

MODELS = shared_directory("models")
SHIPPED = get_card(MODELS, ProbeCard, "tf_efficientnet_lite0")
OWN = SHIPPED.model_copy(update={"name": "own-probe", "input_size": 64})


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """The default probe's card alone."""
    (tmp_path / "probes").mkdir()
    shutil.copy(MODELS / "probes" / "tf_efficientnet_lite0.toml", tmp_path / "probes")
    return tmp_path


def test_shipped_cards_come_back_as_they_were_and_go_when_no_longer_shipped(
    database: Database, models_dir: Path
) -> None:
    for _ in range(2):
        with database.session() as session:
            cards.sync_shipped(session, models_dir)
    with database.session() as session:
        (card,) = cards.list_cards(session, "acme", ProbeCard)
        assert card == SHIPPED
    (models_dir / "probes" / "tf_efficientnet_lite0.toml").unlink()
    with database.session() as session:
        cards.sync_shipped(session, models_dir)
        assert cards.list_cards(session, "acme", ProbeCard) == []


@pytest.mark.engines("servers")
def test_two_services_that_start_at_once_lay_the_same_cards(
    database: Database, models_dir: Path
) -> None:
    def lay() -> None:
        with database.session() as session:
            cards.sync_shipped(session, models_dir)

    def is_anybody_waiting() -> bool:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        with database.session(read_only=True) as session:
            return bool(session.scalar(query))

    with ThreadPoolExecutor(1) as other:
        with database.session() as session:
            cards.sync_shipped(session, models_dir)
            session.flush()
            second = other.submit(lay)
            while not is_anybody_waiting():
                assert not second.done()
        second.result()
    with database.session(read_only=True) as session:
        assert cards.list_cards(session, "acme", ProbeCard) == [SHIPPED]


def test_a_tenants_card_is_its_own(database: Database) -> None:
    with database.session() as session:
        cards.add_card(session, "acme", OWN)
    with database.session() as session:
        assert cards.get_card(session, "acme", ProbeCard, "own-probe") == OWN
        assert cards.list_cards(session, "rival", ProbeCard) == []
        with pytest.raises(InvalidRequest):
            cards.get_card(session, "rival", ProbeCard, "own-probe")


def test_an_unknown_name_is_answered_with_the_names_there_are(database: Database) -> None:
    with database.session() as session:
        cards.add_card(session, "acme", OWN)
        with pytest.raises(InvalidRequest, match="own-probe"):
            cards.get_card(session, "acme", ProbeCard, "own-prove")


def test_a_taken_name_is_a_conflict(database: Database, models_dir: Path) -> None:
    with database.session() as session:
        cards.sync_shipped(session, models_dir)
        cards.add_card(session, "acme", OWN)
        for card in (OWN, SHIPPED):
            with pytest.raises(Conflict) as caught:
                cards.add_card(session, "acme", card)
            assert caught.value.code == "card-exists"
        cards.add_card(session, "rival", OWN)
