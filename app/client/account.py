"""Who you are to the service: what you may, your keys, your secrets, what was done in your name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from urllib.parse import quote

from app.api.schemas import (
    AuditRow,
    CallbackSecret,
    KeyMade,
    KeyPage,
    KeyRow,
    TenantAnswer,
    UsageAnswer,
)
from app.client.asking import Asking, said
from app.scopes import Scope


class Account(Asking):
    async def usage(self) -> UsageAnswer:
        """What you have used, and what you may."""
        return await self._get(UsageAnswer, "/v1/usage")

    async def tenant(self) -> TenantAnswer:
        """What you have set."""
        return await self._get(TenantAnswer, "/v1/tenant")

    async def share_outcomes(self, shares: bool) -> TenantAnswer:
        """Whether others' estimates may learn from your outcomes, from now on."""
        body = {"share_outcomes": shares}
        return await self._ask(TenantAnswer, "PATCH", "/v1/tenant", json=body)

    async def keys(self, *, prefix: str | None = None) -> list[KeyRow]:
        """The oldest first, those that ended too; `prefix` is how a secret begins."""
        return (await self._get(KeyPage, "/v1/keys", prefix=prefix)).items

    async def make_key(
        self, name: str, *, scope: Scope = "write", expires_in_days: float | None = None
    ) -> KeyMade:
        """`secret` is what requests bear, and is told this once."""
        asked = {"name": name, "scope": scope, "expires_in_days": expires_in_days}
        return await self._post(KeyMade, "/v1/keys", said(asked))

    async def rotate_key(
        self, key_id: str, *, overlap_hours: float = 24.0, expires_in_days: float | None = None
    ) -> KeyMade:
        """A successor with a secret of its own; the old one opens until the overlap is over."""
        asked = {"overlap_hours": overlap_hours, "expires_in_days": expires_in_days}
        return await self._post(KeyMade, f"{_key_path(key_id)}/rotation", said(asked))

    async def revoke_key(self, key_id: str) -> None:
        """From now on it opens nothing."""
        await self._wire.delete(_key_path(key_id))

    async def audit(
        self, *, refused: bool = False, actor: str | None = None, since: datetime | None = None
    ) -> AsyncIterator[AuditRow]:
        """Who changed what, and what was refused to whom; newest first."""
        asked = {
            "refused": refused or None,
            "actor": actor,
            "since": None if since is None else since.isoformat(),
        }
        async for row in self._rows(AuditRow, "/v1/audit", **asked):
            yield row

    async def renew_callback_secret(self) -> CallbackSecret:
        """What callbacks are signed with from now on, told this once."""
        return await self._post(CallbackSecret, "/v1/callback-secret", {})


def _key_path(key_id: str) -> str:
    return f"/v1/keys/{quote(key_id, safe='')}"
