"""What every answer tells browsers and proxies: not to guess, frame, pass on or keep it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Pages bring a policy of their own.
_ALWAYS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ENCRYPTED = {"Strict-Transport-Security": "max-age=31536000"}
_OF_TENANTS = {"Cache-Control": "no-store"}


class SafetyHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                add(MutableHeaders(scope=message), scope)
            await send(message)

        await self.app(scope, receive, tell)


def add(headers: MutableHeaders, scope: Scope) -> None:
    for name, value in _ALWAYS.items():
        headers.setdefault(name, value)
    if scope["scheme"] == "https":  # as a proxy in front says
        headers.update(_ENCRYPTED)
    if scope["path"].startswith("/v1/"):
        headers.update(_OF_TENANTS)
