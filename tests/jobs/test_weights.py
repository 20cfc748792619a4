"""What a worker tells of the weights that it has."""

from __future__ import annotations

from app.catalogue import CandidateCard, load_cards
from app.jobs import weights
from app.settings import shared_directory
from app.store import cards, workers
from app.store.session import Database
from app.store.tables import Worker


def test_a_worker_tells_which_of_the_candidates_weights_it_has(database: Database) -> None:
    shipped = load_cards(shared_directory("models"), CandidateCard)
    with database.session() as session:
        cards.sync_shipped(session, shared_directory("models"))
        worker = Worker(id="w", probe="", space_id="", device="", code_version="")
        workers.register(session, worker)
    weights.tell(database, "w")
    with database.session(read_only=True) as session:
        told = workers.weights_at_hand(session)
    assert told is not None
    assert shipped["tf_efficientnet_lite0.in1k"].weights_key in told
    assert told <= {card.weights_key for card in shipped.values()}
