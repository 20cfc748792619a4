"""Which candidates' weights a worker has: told to those who estimate and score."""

from __future__ import annotations

import logging
import threading

from app.embedding.pretrained import are_here
from app.store import cards, workers
from app.store.session import Database
from app.telemetry import log_event

LOOK_SECONDS = 60.0  # what a run or a score fetched is there for the next


def tell(database: Database, worker_id: str) -> None:
    with database.session(read_only=True) as session:
        known = {card.weights_key: card for card in cards.every_candidate(session)}
    here = [
        key for key, card in sorted(known.items()) if are_here(card.network, card.weights.source)
    ]
    with database.session() as session:
        workers.tell_weights(session, worker_id, here)


def tell_until(stopping: threading.Event, database: Database, worker_id: str) -> None:
    while True:
        try:
            tell(database, worker_id)
        except Exception:  # what was wrong may be over at the next turn
            log_event("weights.not_told", level=logging.ERROR, exc_info=True)
        if stopping.wait(LOOK_SECONDS):
            return
