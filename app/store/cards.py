"""Catalogue cards: shipped ones for everybody, and those that a tenant adds for itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from app.catalogue import (
    RUN_SOURCE,
    CandidateCard,
    Card,
    DeviceCard,
    ProbeCard,
    RecipeCard,
    load_cards,
)
from app.errors import Conflict, InvalidRequest, NotFound
from app.store.session import SHIPPED, hold
from app.store.tables import PUBLIC, CandidateScore, CatalogueCard, Finetune, Task
from app.words import choices

CardT = TypeVar("CardT", bound=Card)

_KINDS: dict[type[Card], str] = {
    ProbeCard: "probe",
    CandidateCard: "candidate",
    DeviceCard: "device",
    RecipeCard: "recipe",
}


def sync_shipped(session: Session, models_dir: Path) -> None:
    """Lays the shipped cards anew; those that are no longer shipped go."""
    hold(session, SHIPPED)
    for kind, word in _KINDS.items():
        shipped = load_cards(models_dir, kind)
        session.execute(
            delete(CatalogueCard).where(
                CatalogueCard.tenant == PUBLIC,
                CatalogueCard.kind == word,
                CatalogueCard.name.not_in(shipped),
            )
        )
        for card in shipped.values():
            session.merge(_row(PUBLIC, card))


def list_cards(session: Session, tenant: str, kind: type[CardT]) -> list[CardT]:
    """The shipped cards and the tenant's own, by name; its own hides a shipped one."""
    rows = session.scalars(
        select(CatalogueCard)
        .where(
            CatalogueCard.kind == _KINDS[kind],
            or_(CatalogueCard.tenant == tenant, CatalogueCard.tenant == PUBLIC),
        )
        .order_by(CatalogueCard.name)
    ).all()
    bodies = {row.name: row.body for row in sorted(rows, key=lambda row: row.tenant != PUBLIC)}
    return [kind.model_validate_json(json.dumps(bodies[name])) for name in sorted(bodies)]


def every_candidate(session: Session) -> list[CandidateCard]:
    """Shipped ones and those of all tenants."""
    rows = session.scalars(
        select(CatalogueCard).where(CatalogueCard.kind == _KINDS[CandidateCard])
    ).all()
    return [CandidateCard.model_validate_json(json.dumps(row.body)) for row in rows]


def get_card(session: Session, tenant: str, kind: type[CardT], name: str) -> CardT:
    """The card of that name; InvalidRequest tells names that are like it."""
    cards = {card.name: card for card in list_cards(session, tenant, kind)}
    if name not in cards:
        raise InvalidRequest(
            "unknown-card",
            f"There is no {_KINDS[kind]} {name!r}.",
            f"{choices(cards, name)} `task2vec {_KINDS[kind]}s` lists all.",
        )
    return cards[name]


def is_shipped(session: Session, card: Card) -> bool:
    """Whether the operator put it there as it is, rather than a tenant one of that name."""
    row = session.get(CatalogueCard, (PUBLIC, _KINDS[type(card)], card.name))
    return row is not None and row.body == card.model_dump(mode="json")


def add_card(session: Session, tenant: str, card: Card) -> None:
    """Conflict where the name is taken, by a shipped card or by the tenant's own."""
    row = _row(tenant, card)
    taken = select(CatalogueCard.tenant).where(
        CatalogueCard.kind == row.kind,
        CatalogueCard.name == row.name,
        or_(CatalogueCard.tenant == tenant, CatalogueCard.tenant == PUBLIC),
    )
    if session.scalars(taken).first() is not None:
        raise Conflict(
            "card-exists", f"There is a {row.kind} {card.name!r} already.", "Choose another name."
        )
    session.add(row)


def remove_card(session: Session, tenant: str, kind: type[Card], name: str) -> None:
    """NotFound where the tenant has added none of that name."""
    row = session.get(CatalogueCard, (tenant, _KINDS[kind], name))
    if row is None or tenant == PUBLIC:
        raise NotFound(
            "unknown-card",
            f"You have added no {_KINDS[kind]} {name!r}.",
            "Only cards of your own can be deleted; shipped ones belong to the operator.",
        )
    session.delete(row)
    if kind is CandidateCard:  # the next one of that name is another network
        own = select(Task.seq).where(Task.tenant == tenant)
        session.execute(
            delete(CandidateScore).where(
                CandidateScore.candidate == name, CandidateScore.task_seq.in_(own)
            )
        )


def hold_models(session: Session, tenant: str) -> None:
    """Until the unit of work ends, no model of the tenant's becomes a candidate or goes."""
    hold(session, f"models of {tenant}")


def kind_of(card: type[Card]) -> str:
    return _KINDS[card]


def runs_that_are_candidates(session: Session) -> set[str]:
    """Ids of the runs whose model a tenant's candidate is."""
    own = (CatalogueCard.tenant != PUBLIC, CatalogueCard.kind == _KINDS[CandidateCard])
    sources = (
        card.body["weights"]["source"]
        for card in session.scalars(select(CatalogueCard).where(*own))
    )
    return {each.removeprefix(RUN_SOURCE) for each in sources if each.startswith(RUN_SOURCE)}


def require_no_candidate(session: Session, task: Task) -> None:
    """Conflict where the model of one of the task's runs is a candidate."""
    hold_models(session, task.tenant)
    runs = session.scalars(select(Finetune.id).where(Finetune.task_seq == task.seq))
    sources = {f"{RUN_SOURCE}{finetune_id}" for finetune_id in runs}
    own = session.scalars(
        select(CatalogueCard).where(
            CatalogueCard.tenant == task.tenant, CatalogueCard.kind == _KINDS[CandidateCard]
        )
    )
    names = sorted(card.name for card in own if card.body["weights"]["source"] in sources)
    if names:
        raise Conflict(
            "task-has-candidates",
            f"The weights of {', '.join(names)} come from runs on the task {task.id!r}, and would "
            "go with it.",
            f"Delete these candidates first, as by DELETE /v1/candidates/{names[0]}.",
            candidates=names,
        )


def _row(tenant: str, card: Card) -> CatalogueCard:
    return CatalogueCard(
        tenant=tenant, kind=_KINDS[type(card)], name=card.name, body=card.model_dump(mode="json")
    )
