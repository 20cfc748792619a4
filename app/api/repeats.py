"""A POST with an Idempotency-Key does its work once: its repetition gets the same answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from app.api.auth import Tenant
from app.api.deeds import deed
from app.api.resources import Reached
from app.store import idempotency
from app.store.idempotency import Answer

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="the same key and request again: the same answer, and nothing done twice",
    ),
]

_IDS = ("id", "name", "job_id")  # where an answer says what came of it


@dataclass(frozen=True, slots=True)
class _Post:
    """A POST as its repetition can be told: tenant, key, and where it goes."""

    request: Request
    tenant: str
    key: str | None

    def fingerprint(self, *content: str) -> str:
        address = f"{self.request.method} {self.request.url.path}"
        return hashlib.sha256("\n".join((address, *content)).encode()).hexdigest()

    def replayed(self, session: Session, *content: str) -> JSONResponse | None:
        """What was answered before to the same key and `content`, if anything was."""
        if self.key is None:
            return None
        answer = idempotency.recall(session, self.tenant, self.key, self.fingerprint(*content))
        return None if answer is None else _respond(answer, replayed=True)

    def once(self, session: Session, work: Callable[[], Answer], *content: str) -> JSONResponse:
        """What `work` answers, or what it answered before to the same key and `content`.

        Work, memory of it and its row in the audit log share the session's commit. InvalidRequest
        where the key came with other content.
        """

        def audited() -> Answer:
            answer = work()
            made = next((answer.body[name] for name in _IDS if name in answer.body), None)
            session.add(deed(self.request, answer.status, made))
            return answer

        return self._remembered(session, audited, *content)

    def claim(self, reached: Reached, *content: str) -> None:
        """For a POST that only reads: its repetition is answered afresh, other content refused."""
        if self.key is not None:
            with reached.database.session() as session:
                self._remembered(session, lambda: Answer(200, {}), *content)

    def _remembered(
        self, session: Session, work: Callable[[], Answer], *content: str
    ) -> JSONResponse:
        if self.key is None:
            return _respond(work())
        before = self.replayed(session, *content)
        if before is not None:
            return before
        answer = work()
        fingerprint = self.fingerprint(*content)
        idempotency.remember(session, self.tenant, self.key, fingerprint, answer)
        return _respond(answer)


async def _post(request: Request, tenant: Tenant, key: Key = None) -> _Post:
    return _Post(request, tenant, key)


Post = Annotated[_Post, Depends(_post)]


def _respond(answer: Answer, *, replayed: bool = False) -> JSONResponse:
    headers = {"Location": answer.location} if answer.location else {}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse({**answer.body, **answer.told_once}, answer.status, headers)
