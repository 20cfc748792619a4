"""A large archive on its way to become a task: straight into the store, where that is offered.

What the store has of it already is not sent again, so a command that was interrupted goes on when
it is run once more, from the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import httpx

from app.client.problems import ProblemAnswered
from app.client.transports import Transport
from app.client.wire import ATTEMPTS, TIMEOUT, Json, Wire, pause_seconds
from app.errors import Conflict, Unavailable
from app.folder import Archive, archive_name, bytes_in, open_archive

OnProgress = Callable[[str, int], None]
"""Hears what is done with the archive, and with how many bytes of it."""

LARGE_BYTES = 64 * 2**20
PART_BYTES = 16 * 2**20
_MOST_PARTS = 9_000  # a store takes 10,000, and a folder's archive is larger than its files
_NOT_OFFERED = ("uploads-not-offered", "unknown-route")


async def send_task(
    wire: Wire,
    archive: Path | Archive,
    metadata: Json,
    *,
    on_progress: OnProgress,
    on_detour: Callable[[str], None],
) -> Json:
    """The answer that accepted it. A store that cannot be reached from here is told of to
    `on_detour`, and the archive goes through the service."""
    if isinstance(archive, Path) and await wire.work(partial(bytes_in, archive)) >= LARGE_BYTES:
        begun = await _begun(wire, archive, metadata, on_progress)
        if begun is not None:
            try:
                await _put_missing(wire, begun, archive, on_progress)
            except _NeverReached as error:
                await wire.delete(begun["links"]["self"])
                on_detour(f"{error.detail} The archive goes through the service.")
            else:
                accepted: Json = await wire.post(begun["links"]["complete"], {})
                return accepted
    return await wire.upload(
        "/v1/tasks", archive, metadata, on_sent=partial(on_progress, "sending")
    )


class _NeverReached(Unavailable):
    """Not for a single part of this archive."""


async def _begun(wire: Wire, archive: Path, metadata: Json, on_progress: OnProgress) -> Json | None:
    """None where the service takes archives only itself."""
    part_bytes = max(PART_BYTES, math.ceil(bytes_in(archive) / _MOST_PARTS))
    whole, parts, size_bytes = hashlib.sha256(), [], 0
    async for piece, digest in _pieces(wire, archive, part_bytes):
        await wire.work(partial(whole.update, piece))
        parts.append(digest)
        size_bytes += len(piece)
        on_progress("reading", size_bytes)
    asked = {
        **metadata,
        "filename": archive_name(archive),
        "size_bytes": size_bytes,
        "sha256": whole.hexdigest(),
        "part_bytes": part_bytes,
        "parts": parts,
    }
    try:
        begun: Json = await wire.post("/v1/uploads", asked)
    except ProblemAnswered as problem:
        if problem.code in _NOT_OFFERED:
            return None
        raise
    return {**begun, "parts": parts}


async def _put_missing(wire: Wire, begun: Json, archive: Path, on_progress: OnProgress) -> None:
    missing = {part["number"]: part for part in begun["missing"]}
    is_new = len(missing) == len(begun["parts"])
    done = 0
    store = wire.keyless()
    try:
        number = 0
        async for piece, digest in _pieces(wire, archive, begun["part_bytes"]):
            number += 1
            if number in missing:
                if digest != begun["parts"][number - 1]:
                    raise Conflict(
                        "archive-changed",
                        f"{archive} has changed since it was read.",
                        "Run the command again once nobody writes there.",
                    )
                try:
                    await _put(store, missing[number], piece)
                except httpx.TransportError as error:
                    raise _unreachable(str(error), never=is_new and not done) from error
                except httpx.HTTPStatusError as error:  # whose own words are the signed address
                    status = error.response.status_code
                    raise _unreachable(f"it answered {status}", never=False) from None
            done += len(piece)
            on_progress("sending", done)
    finally:
        await store.close()


async def _put(store: Transport, part: Json, piece: bytes) -> None:
    for attempt in itertools.count(1):
        try:
            answer = await store.send(
                "PUT", part["url"], content=piece, headers=part["headers"], timeout=TIMEOUT
            )
            answer.raise_for_status()
        except httpx.HTTPError:
            if attempt == ATTEMPTS:
                raise
            await store.pause(pause_seconds(attempt))
        else:
            return


def _unreachable(why: str, *, never: bool) -> Unavailable:
    return (_NeverReached if never else Unavailable)(
        "store-unreachable",
        f"The store of archives takes nothing from here ({why}).",
        "Run the same command again: it goes on where it stopped.",
    )


async def _pieces(wire: Wire, archive: Path, part_bytes: int) -> AsyncIterator[tuple[bytes, str]]:
    """With the SHA-256 of each."""
    pieces = _read(archive, part_bytes)
    while (piece := await wire.work(partial(next, pieces, None))) is not None:
        yield piece


def _read(archive: Path, part_bytes: int) -> Iterator[tuple[bytes, str]]:
    with open_archive(archive) as opened, closing(io.BufferedReader(opened)) as stream:
        while piece := stream.read(part_bytes):
            yield piece, hashlib.sha256(piece).hexdigest()
