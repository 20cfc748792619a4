"""What a caller may do: each scope allows what those before it allow, and more."""

from __future__ import annotations

from typing import Literal, get_args

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


def allows(held: Scope | None, needed: Scope) -> bool:
    return held is not None and SCOPES.index(held) >= SCOPES.index(needed)
