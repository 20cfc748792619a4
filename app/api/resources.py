"""What a request may reach: settings, blobs, indexes, and one unit of work on the database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.api.deeds import deed
from app.api.tokens import Provider
from app.settings import Settings
from app.store.blobs import BlobStore
from app.store.estimators import Estimators
from app.store.search import Indexes
from app.store.session import Database


@dataclass(frozen=True, slots=True)
class Resources:
    settings: Settings
    database: Database
    blobs: BlobStore
    indexes: Indexes
    estimators: Estimators
    provider: Provider | None  # of tokens

    @property
    def look_seconds(self) -> float:
        """Between two looks of a stream; more seldom than a worker's, as there may be hundreds."""
        return 2 * self.settings.poll_interval_seconds


async def resources(request: Request) -> Resources:
    reached: Resources = request.app.state.resources
    return reached


Reached = Annotated[Resources, Depends(resources)]


def _reading(reached: Reached) -> Iterator[Session]:
    with reached.database.session(read_only=True) as session:
        yield session


def _writing(request: Request, reached: Reached) -> Iterator[Session]:
    with reached.database.session() as session:
        yield session
        if request.method != "POST":  # what a POST made its `Post` knows, and writes down
            status = request.scope["route"].status_code or 200
            session.add(deed(request, status))


# Scope "function": the commit comes before the answer, so that a failed one can still be told.
Reading = Annotated[Session, Depends(_reading, scope="function")]
Writing = Annotated[Session, Depends(_writing, scope="function")]
