"""Connections to public addresses: the one that was looked at is the one that is connected to.

A name is looked up once a connection. Were it looked up to be checked and again to connect, its
owner could answer with another address the second time.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import httpcore
import httpx

from app.errors import Forbidden

Lookup = Callable[[str, int], Sequence[str]]
_Address = IPv4Address | IPv6Address
_Options = Iterable[
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
]

_NAT64 = IPv6Network("64:ff9b::/96")


def look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def pinned_transport(networks: Sequence[str], lookup: Lookup = look_up) -> httpx.HTTPTransport:
    """Connects to public addresses, and to those in `networks`; Forbidden for any other."""
    transport = httpx.HTTPTransport()
    transport._pool.close()
    transport._pool = httpcore.ConnectionPool(
        ssl_context=httpx.create_ssl_context(), network_backend=_Pinned(networks, lookup)
    )
    return transport


class _Pinned(httpcore.NetworkBackend):
    def __init__(self, networks: Sequence[str], lookup: Lookup) -> None:
        self._networks = [ip_network(network) for network in networks]
        self._lookup = lookup
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _Options | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = self._lookup(host, port)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for address in addresses:  # all of them: which one answers is not for its owner to choose
            if not self._is_allowed(address):
                raise _not_public(host)
        failed: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return self._backend.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed

    def _is_allowed(self, address: str) -> bool:
        ip = _meant(ip_address(address))
        if any(ip in network for network in self._networks):
            return True
        return ip.is_global and not ip.is_multicast


def _meant(ip: _Address) -> _Address:
    """The IPv4 address that an IPv6 one leads to, where it is written in it."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)


def _not_public(host: str) -> Forbidden:
    return Forbidden(
        "source-address-not-allowed",
        f"{host} has an address that is not public.",
        "Upload the archive, or ask the operator to add its network to TASK2VEC_SOURCE_NETWORKS.",
    )
