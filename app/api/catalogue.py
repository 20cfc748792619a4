"""The catalogue: shipped cards for everybody, and a tenant's own candidates and devices."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from sqlalchemy.orm import Session

from app.api.auth import Tenant
from app.api.bodies import describe_json_body, json_body
from app.api.problems import problems
from app.api.repeats import Post
from app.api.resources import Reading, Writing
from app.api.schemas import CardPage, ProbeAnswer
from app.catalogue import CandidateCard, Card, DeviceCard, ProbeCard, RecipeCard
from app.errors import Forbidden, InvalidRequest
from app.store import cards
from app.store.idempotency import Answer

router = APIRouter(tags=["catalogue"])

_ADDED: dict[str, Any] = {
    "status_code": 201,
    "responses": problems(409, 413, 415),
}


@router.get("/candidates", response_model=CardPage[CandidateCard])
def list_candidates(tenant: Tenant, session: Reading) -> CardPage[CandidateCard]:
    return CardPage(items=cards.list_cards(session, tenant, CandidateCard))


@router.post(
    "/candidates",
    response_model=CandidateCard,
    openapi_extra=describe_json_body(CandidateCard),
    **_ADDED,
)
def post_candidate(
    card: Annotated[CandidateCard, json_body(CandidateCard)],
    tenant: Tenant,
    post: Post,
    session: Writing,
) -> Response:
    """Models of runs come by `POST /v1/finetunes/{finetune_id}/candidate`."""
    if card.weights.run_id is not None:
        raise Forbidden(
            "weights-not-allowed",
            f"The card of {card.name} names the model of a run as its weights.",
            f"Register it instead: POST /v1/finetunes/{card.weights.run_id}/candidate.",
        )
    return _add(session, tenant, post, card)


@router.delete("/candidates/{name}", status_code=204, responses=problems(404))
def delete_candidate(
    name: Annotated[str, Path(max_length=100)], tenant: Tenant, session: Writing
) -> None:
    """One of your own. Outcomes of it stay, and so does the run whose model it is."""
    cards.remove_card(session, tenant, CandidateCard, name)


@router.get("/devices", response_model=CardPage[DeviceCard])
def list_devices(tenant: Tenant, session: Reading) -> CardPage[DeviceCard]:
    return CardPage(items=cards.list_cards(session, tenant, DeviceCard))


@router.post(
    "/devices",
    response_model=DeviceCard,
    openapi_extra=describe_json_body(DeviceCard),
    **_ADDED,
)
def post_device(
    card: Annotated[DeviceCard, json_body(DeviceCard)],
    tenant: Tenant,
    post: Post,
    session: Writing,
) -> Response:
    return _add(session, tenant, post, card)


@router.delete("/devices/{name}", status_code=204, responses=problems(404))
def delete_device(
    name: Annotated[str, Path(max_length=100)], tenant: Tenant, session: Writing
) -> None:
    """One of your own. Outcomes and timings of it stay."""
    cards.remove_card(session, tenant, DeviceCard, name)


@router.get("/recipes", response_model=CardPage[RecipeCard])
def list_recipes(tenant: Tenant, session: Reading) -> CardPage[RecipeCard]:
    return CardPage(items=cards.list_cards(session, tenant, RecipeCard))


@router.get("/probes", response_model=CardPage[ProbeAnswer])
def list_probes(tenant: Tenant, session: Reading) -> CardPage[ProbeAnswer]:
    found = cards.list_cards(session, tenant, ProbeCard)
    return CardPage(items=[ProbeAnswer(**dict(card), pinned=card.is_pinned) for card in found])


def _add(session: Session, tenant: str, post: Post, card: Card) -> Response:
    for name, value in card.model_dump().items():
        _require_plausible(name, value)

    def add() -> Answer:
        cards.add_card(session, tenant, card)
        return Answer(201, card.model_dump(mode="json"))

    return post.once(session, add, card.model_dump_json())


def _require_plausible(name: str, value: Any) -> None:
    """Numbers that arithmetic survives, and text that can be written down."""
    if isinstance(value, dict):
        for inner, its_value in value.items():
            _require_plausible(f"{name}.{inner}", its_value)
    elif isinstance(value, str) and not value.isprintable():
        raise _implausible(name, "text that cannot be printed")
    elif isinstance(value, int | float) and value and not 1e-15 <= abs(value) <= 1e21:
        raise _implausible(name, "a number that no machine or network has")


def _implausible(name: str, what: str) -> InvalidRequest:
    return InvalidRequest("card-implausible", f"`{name}` is {what}.", "Change that field.")
