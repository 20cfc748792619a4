"""Bearer tokens of an OpenID Connect provider: whom they are of, by the provider's own keys."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from app.errors import Forbidden, Unauthorised, Unavailable
from app.scopes import SCOPES, Scope
from app.store.tables import PUBLIC
from app.telemetry import log_event

# Signed with a key that only the provider has. With a shared secret (HS256) whoever can check a
# token could make one; with `none` anybody.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
)
LEEWAY_SECONDS = 30  # between the clocks of two machines
KEPT_SECONDS = 3600.0  # a key that the provider withdraws opens nothing after that
FLOOR_SECONDS = 10.0  # between two questions to the provider, whatever tokens name
_TIMEOUT_SECONDS = 5.0
_TENANT_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Bearer:
    tenant: str
    subject: str
    scope: Scope | None
    until: float  # by time.time()


class _Fetched(NamedTuple):
    keys: KeySet
    at: float


class Provider:
    """What is trusted: tokens of this issuer that are meant for this audience."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        tenant_claim: str,
        scopes_claim: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._tenant_claim, self._scopes_claim = tenant_claim, scopes_claim
        self._clock = clock
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        self._asking = threading.Lock()
        self._asked = float("-inf")
        self._fetched: _Fetched | None = None

    def read(self, token: str) -> Bearer:
        """Unauthorised for a token that is not valid, Forbidden for one that names no tenant,
        Unavailable where the provider must be asked for its keys and does not answer."""
        claims = self._verified(token)
        tenant = claims.get(self._tenant_claim)
        if not isinstance(tenant, str) or not _is_tenant(tenant):
            raise Forbidden(
                "token-without-tenant",
                f"The token's claim {self._tenant_claim!r} names no tenant.",
                "Have the provider put it there, or set TASK2VEC_OIDC_TENANT_CLAIM.",
            )
        return Bearer(tenant, claims["sub"], self._scope(claims), claims["exp"] + LEEWAY_SECONDS)

    def _verified(self, token: str) -> dict[str, Any]:
        try:
            try:
                found = jwt.decode(token, self._keys(), ALGORITHMS)
            except InvalidKeyIdError:  # a key that the provider has begun to use, or none of its
                found = jwt.decode(token, self._keys(are_old=True), ALGORITHMS)
            self._claims.validate(found.claims)
        except ExpiredTokenError as error:
            raise expired() from error
        except (JoseError, ValueError) as error:
            told = getattr(error, "description", "") or type(error).__name__
            raise Unauthorised(
                "token-invalid",
                f"This token is not valid here: {told.rstrip('.')}.",
                f"Get one of {self._issuer} that is meant for this service.",
            ) from error
        return found.claims

    def _scope(self, claims: dict[str, Any]) -> Scope | None:
        """The widest that is named, in a list or between spaces."""
        named = claims.get(self._scopes_claim, ())
        if isinstance(named, str):
            named = named.split()
        if not isinstance(named, list | tuple):
            return None
        return next((scope for scope in reversed(SCOPES) if scope in named), None)

    def _keys(self, *, are_old: bool = False) -> KeySet:
        """`are_old`: those that are kept lack one. Nobody waits for the provider but those who
        need to."""
        kept = self._kept()
        if kept is not None and not are_old:
            return kept
        with self._asking:
            newer = self._kept()
            if newer is not None and newer is not kept:  # somebody else has just asked
                return newer
            if self._clock() < self._asked + FLOOR_SECONDS:
                if newer is not None:
                    return newer
                raise _unavailable()
            self._asked = self._clock()
            try:
                keys = self._fetch()
            except Exception as error:  # whatever it answers instead of keys, nobody passes by it
                log_event(
                    "oidc.unavailable",
                    level=logging.ERROR,
                    issuer=self._issuer,
                    reason=repr(error),
                )
                raise _unavailable() from error
            self._fetched = _Fetched(keys, self._clock())
            return keys

    def _kept(self) -> KeySet | None:
        fetched = self._fetched
        if fetched is None or self._clock() >= fetched.at + KEPT_SECONDS:
            return None
        return fetched.keys

    def _fetch(self) -> KeySet:
        discovery = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        with httpx.Client(timeout=_TIMEOUT_SECONDS) as provider:
            document = provider.get(discovery).raise_for_status().json()
            if document["issuer"] != self._issuer:
                raise ValueError(f"{discovery} is of another issuer")
            address = document["jwks_uri"]
            if not address.startswith("https://") and self._issuer.startswith("https://"):
                raise ValueError(f"{discovery} names keys that come without encryption")
            return KeySet.import_key_set(provider.get(address).raise_for_status().json())


def _is_tenant(name: str) -> bool:
    fits = 0 < len(name.strip()) <= len(name) <= _TENANT_CHARACTERS
    return fits and name.isprintable() and name != PUBLIC


def expired() -> Unauthorised:
    return Unauthorised("token-expired", "The time of this token is over.", "Get a new one.")


def _unavailable() -> Unavailable:
    return Unavailable(
        "provider-unavailable",
        "The provider of tokens does not answer, so this one cannot be checked.",
        "Try again in a moment, or use an API key.",
        retry_after_seconds=int(FLOOR_SECONDS),
    )
