"""Which candidates somebody would take at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query
from pydantic import StringConstraints

from app.catalogue import CandidateCard
from app.cost.predictor import Estimate
from app.errors import InvalidRequest
from app.words import choices


@dataclass(frozen=True, slots=True)
class Limits:
    """Of networks and their licences; None and nothing leave all in."""

    licence: Sequence[str] = ()
    max_parameters: int | None = None
    max_inference_seconds: float | None = None

    def within(
        self, estimates: Sequence[Estimate], cards: Mapping[str, CandidateCard]
    ) -> list[Estimate]:
        """InvalidRequest for a licence that no card has."""
        known = {card.licence.casefold(): card.licence for card in cards.values()}
        for name in self.licence:
            if name.casefold() not in known:
                raise InvalidRequest(
                    "unknown-licence",
                    f"No candidate has the licence {name!r}.",
                    choices(known.values(), name),
                )
        taken = {name.casefold() for name in self.licence} or known.keys()
        return [
            each
            for each in estimates
            if cards[each.candidate].licence.casefold() in taken
            and self._is_within(each, cards[each.candidate])
        ]

    def _is_within(self, estimate: Estimate, card: CandidateCard) -> bool:
        return (self.max_parameters is None or card.parameters <= self.max_parameters) and (
            self.max_inference_seconds is None
            or estimate.inference_seconds.typical <= self.max_inference_seconds
        )


def _limits(
    licence: Annotated[
        list[Annotated[str, StringConstraints(max_length=100)]],
        Query(max_length=100, description="as cards have it, `Apache-2.0`; also several times"),
    ] = [],  # noqa: B006 - FastAPI copies it
    max_parameters: Annotated[
        int | None, Query(ge=1, le=10**15, description="size of the network")
    ] = None,
    max_inference_seconds: Annotated[
        float | None, Query(gt=0, allow_inf_nan=False, description="typical, one image at a time")
    ] = None,
) -> Limits:
    return Limits(licence, max_parameters, max_inference_seconds)


Within = Annotated[Limits, Depends(_limits)]
