"""What may go wrong between here and a server."""

from __future__ import annotations

from typing import Any

import httpx

from app.errors import Task2VecError, Unavailable

_ERRORS_TOLD = 3


class ServerUnreachable(Unavailable):
    """Nobody answers at that address."""


class ProblemAnswered(Task2VecError):
    """The server's own problem document, told on."""

    def __init__(self, document: dict[str, Any]) -> None:
        detail = str(document.get("detail") or document.get("title") or "The request failed.")
        remedy = str(document.get("remedy", ""))
        if errors := document.get("errors"):  # a field each: they say all that is to be said
            told = [f"{error['field']}: {error['message']}" for error in errors[:_ERRORS_TOLD]]
            detail = "; ".join(told) + ("; and more." if len(errors) > _ERRORS_TOLD else ".")
            remedy = ""
        super().__init__(
            code=str(document.get("type", "")).rpartition("/")[2], detail=detail, remedy=remedy
        )
        self.document = document
        self.status = int(document.get("status", self.status))
        self.title = str(document.get("title", self.title))

    @classmethod
    def of(cls, response: httpx.Response) -> ProblemAnswered:
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            document = {
                "status": response.status_code,
                "detail": f"{response.url} answered {response.status_code} "
                f"{response.reason_phrase}.",
                "remedy": "Is this a Task2Vec server? See the server's log.",
            }
        return cls({"status": response.status_code, **document})

    def problem(self) -> dict[str, Any]:
        return self.document
