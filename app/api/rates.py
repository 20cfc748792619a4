"""So many requests a minute may a tenant make: reads, writes, uploads.

Every process of the API counts for itself, what it can bear: two of them bear twice as much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.auth import Tenant
from app.errors import TooManyRequests
from app.settings import Settings

Kind = Literal["reads", "writes", "uploads"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_WINDOW_SECONDS = 60
_STATE = "rate"


@dataclass(frozen=True, slots=True)
class Left:
    """Of a kind of request: how many a minute, how many now, and when there are more."""

    kind: Kind
    limit: int
    remaining: int
    reset_seconds: int
    admitted: bool = True

    @property
    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers writes them."""
        return {
            "RateLimit-Policy": f'"{self.kind}";q={self.limit};w={_WINDOW_SECONDS}',
            "RateLimit": f'"{self.kind}";r={self.remaining};t={self.reset_seconds}',
        }


class Rates:
    """The counts of one process; a kind without a limit is not counted."""

    def __init__(self, per_minute: Mapping[Kind, int | None]) -> None:
        self._items = {
            kind: RateLimitItemPerMinute(limit)
            for kind, limit in per_minute.items()
            if limit is not None
        }
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count(self, kind: Kind, tenant: str) -> Left | None:
        """Counts a request, unless it is one too many."""
        item = self._items.get(kind)
        admitted = item is not None and self._limiter.hit(item, tenant, kind)
        left = self.left(kind, tenant)
        return None if left is None else replace(left, admitted=admitted)

    def left(self, kind: Kind, tenant: str) -> Left | None:
        item = self._items.get(kind)
        if item is None:
            return None
        stats = self._limiter.get_window_stats(item, tenant, kind)
        seconds = max(1, math.ceil(stats.reset_time - time.time()))
        return Left(kind, item.amount, stats.remaining, seconds)


def rates_of(settings: Settings) -> Rates:
    """No limits on a server that asks for no keys: its one user is the operator."""
    if not settings.keys_required:
        return Rates({})
    return Rates(
        {
            "reads": settings.max_reads_per_minute,
            "writes": settings.max_writes_per_minute,
            "uploads": settings.max_uploads_per_minute,
        }
    )


def counted(*, uploads: bool = False) -> Callable[..., Any]:
    """Dependency: counts the request, before anything of its body is read."""

    async def count(request: Request, tenant: Tenant) -> None:
        kind: Kind = "uploads" if uploads else "writes"
        if request.method in ("GET", "HEAD"):
            kind = "reads"
        rates: Rates = request.app.state.rates
        left = rates.count(kind, tenant)
        request.scope["state"][_STATE] = left
        if left is not None and not left.admitted:
            raise _one_too_many(left)

    return count


def _one_too_many(left: Left) -> TooManyRequests:
    return TooManyRequests(
        "rate-exceeded",
        f"You made more than {left.limit:,} {left.kind} in a minute.",
        f"Wait {left.reset_seconds} s, then go on more slowly.",
        rate=left.kind,
        limit=left.limit,
        retry_after_seconds=left.reset_seconds,
    )


class RateHeaders:
    """Says in every answer how many more requests may come."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})

        async def tell(message: Message) -> None:
            left: Left | None = state.get(_STATE)
            if message["type"] == "http.response.start" and left is not None:
                MutableHeaders(scope=message).update(left.headers)
            await send(message)

        await self.app(scope, receive, tell)
