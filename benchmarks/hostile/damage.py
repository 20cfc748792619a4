"""Good archives damaged at random, without end."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable, Iterator
from random import Random

from benchmarks.hostile.plain import FORMATS, files, picture, tarred, zipped, zstd


def _flip(random: Random, data: bytearray) -> None:
    for _ in range(random.randint(1, 8)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _overwrite(random: Random, data: bytearray) -> None:
    at, n = random.randrange(len(data)), random.randint(1, 64)
    data[at : at + n] = random.randbytes(n)[: len(data) - at]


def _extreme(random: Random, data: bytearray) -> None:
    at = random.randrange(len(data))
    data[at : at + 4] = random.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80"))


def _remove(random: Random, data: bytearray) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.randint(1, 200)]


def _repeat(random: Random, data: bytearray) -> None:
    at, n = random.randrange(len(data)), random.randint(1, 2_000)
    data[at:at] = data[at : at + n] * random.randint(1, 20)


def _move(random: Random, data: bytearray) -> None:
    at, to = random.randrange(len(data)), random.randrange(len(data))
    data[to : to + 100] = data[at : at + 100]


_WAYS: tuple[Callable[[Random, bytearray], None], ...] = (
    _flip, _overwrite, _extreme, _remove, _repeat, _move,
)  # fmt: skip


def cases(random: Random) -> Iterator[tuple[str, bytes]]:
    plain = files(random)
    packed = {
        "zip": zipped(plain),
        "stored": zipped(plain, zipfile.ZIP_STORED),
        "tar": tarred(plain),
        "tar.gz": gzip.compress(tarred(plain), mtime=0),
        "tar.zst": zstd(tarred(plain)),
    }
    pictures = {ending: picture(random, ending, 64) for ending in FORMATS}
    while True:
        for name, whole in packed.items():
            yield name, _damaged(random, whole)
        for ending, whole in pictures.items():
            yield ending, zipped({**plain, f"cat/x.{ending}": _damaged(random, whole)})


def _damaged(random: Random, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(random.randint(1, 3)):
        random.choice(_WAYS)(random, data)
    return bytes(data)
