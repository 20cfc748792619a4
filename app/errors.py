"""Every error a user can meet, each with its HTTP status and what to change.

Task2VecError            500
├── InvalidRequest       422  fields that do not fit; unknown names; bad numbers
├── Refused              422  the labelled image set cannot become a task
├── Unauthorised         401
├── Forbidden            403
├── NotFound             404
├── Conflict             409  the state of things does not allow it (yet)
│   └── DifferentSpaces  409  two embeddings that must not be compared
├── TooLarge             413
├── UnsupportedMedia     415
├── TooManyRequests      429
├── Unavailable          503
└── Cancelled            499  the user took the job back
"""

from __future__ import annotations

import errno
from typing import Any

NO_SPACE = "no-space"
"""Code of a full disk, whoever met it."""


class Task2VecError(Exception):
    """Told to the user: a stable `code`, `detail` of what happened, `remedy`: what to do."""

    status: int = 500
    title: str = "Internal error"

    def __init__(self, code: str, detail: str, remedy: str, **extra: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.remedy = remedy
        self.extra = extra

    def problem(self) -> dict[str, Any]:
        """The RFC 9457 problem document; `extra` members stand beside the standard ones."""
        return {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "remedy": self.remedy,
            **self.extra,
        }

    def __str__(self) -> str:
        return f"{self.detail} {self.remedy}".strip()


class InvalidRequest(Task2VecError):
    status = 422
    title = "The request does not fit"


class Refused(Task2VecError):
    status = 422
    title = "The labelled image set was refused"


class Unauthorised(Task2VecError):
    status = 401
    title = "A key is needed"


class Forbidden(Task2VecError):
    status = 403
    title = "Not allowed"


class NotFound(Task2VecError):
    status = 404
    title = "Not found"


class Conflict(Task2VecError):
    status = 409
    title = "The present state does not allow this"


class DifferentSpaces(Conflict):
    title = "The embeddings do not compare"


class TooLarge(Task2VecError):
    status = 413
    title = "Too large"


class UnsupportedMedia(Task2VecError):
    status = 415
    title = "This kind of content is not read"


class TooManyRequests(Task2VecError):
    status = 429
    title = "Too many requests"


class Unavailable(Task2VecError):
    status = 503
    title = "Not available now"


class Cancelled(Task2VecError):
    status = 499
    title = "Cancelled"


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
