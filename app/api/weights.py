"""Whose weights a worker may load for a tenant."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from app.catalogue import RUN_SOURCE, CandidateCard
from app.errors import Forbidden, InvalidRequest
from app.store import cards, finetunes, workers
from app.store.tables import Task

IsHere = Callable[[CandidateCard], bool]

_FETCHED = "timm:"


def require_weights(session: Session, card: CandidateCard) -> None:
    """InvalidRequest for a card that names none, Forbidden for a tenant's own that names a file of
    the server's: what an error said of that file would be told to whoever may add cards."""
    if card.weights.source == "none":
        raise InvalidRequest(
            "candidate-without-weights",
            f"The card of {card.name} describes the model only: it names no weights.",
            "Choose a candidate that has some, or add a card that says where they are.",
        )
    if not card.weights.source.startswith((_FETCHED, RUN_SOURCE)) and not cards.is_shipped(
        session, card
    ):
        raise Forbidden(
            "weights-not-allowed",
            f"The weights of {card.name} are a file of the server's, and the card is yours.",
            "Name weights of timm's (`timm:`), or have the operator put the card beside the "
            "shipped ones.",
        )


def weights_here(session: Session) -> IsHere | None:
    """Tells of a candidate whether a worker that is up has its weights, so that nobody has to fetch
    them; None where no worker is."""
    keys = workers.weights_at_hand(session)
    if keys is None:
        return None

    def is_here(card: CandidateCard) -> bool:
        return card.weights.source.startswith(RUN_SOURCE) or card.weights_key in keys

    return is_here


def are_at_hand(session: Session, card: CandidateCard, is_here: IsHere | None) -> bool:
    """Whether they may be loaded and nobody has to fetch them, as far as that is known."""
    source = card.weights.source
    if source.startswith(("package:", "file:")) and not cards.is_shipped(session, card):
        return False
    if is_here is not None:
        return is_here(card)
    return source.startswith((RUN_SOURCE, "package:", "file:"))


def require_unseen(session: Session, tenant: str, card: CandidateCard, task: Task) -> None:
    """InvalidRequest where the candidate was trained on the task: it would be judged by images that
    it knows."""
    if task.id in finetunes.tasks_seen(session, tenant, card):
        raise InvalidRequest(
            "candidate-knows-task",
            f"{card.name} was trained on the task {task.id!r}: of its images it knows the answers.",
            "Take the candidate that it came from, or another task.",
        )
