"""Tars, plain and packed: links, devices, headers without end, sparse files, streams that grow."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from random import Random

import zstandard

from benchmarks.hostile.plain import files, picture, tarred, zstd
from benchmarks.hostile.zips import MIB, PATHS

_TYPES = (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"L", b"K", b"x", b"g", b"X", b"V", b"Z")


def _gzip(data: bytes, level: int = 9) -> bytes:
    return gzip.compress(data, level, mtime=0)  # the same bytes at any time


def cases(random: Random) -> Iterator[tuple[str, bytes]]:
    plain = files(random)
    whole = tarred(plain)
    for number, path in enumerate(PATHS):
        if "\0" not in path:
            yield f"path-{number}", tarred({**plain, path: picture(random)})
    for kind in _TYPES:
        for size in (0, 10, 2**33):
            info = tarfile.TarInfo("cat/special.png")
            info.type, info.size, info.linkname = kind, size, "/etc/passwd"
            yield f"type-{kind.decode()}-{size}", info.tobuf() + whole
    yield from _headers(whole)
    yield from _cut(random, whole)
    yield from _packed(random, whole)


def bombs(_: Random) -> Iterator[tuple[str, bytes]]:
    whole = tarred(files(Random(0)))
    info = tarfile.TarInfo("cat/a.png")
    info.size = 60 * MIB
    large = info.tobuf() + bytes(info.size)
    yield "gz-bomb", _gzip(large * 4 + bytes(1024), 1)
    yield "gz-members", _gzip(whole) + _gzip(bytes(200 * MIB), 1)
    yield "gz-in-gz", _gzip(_gzip(large, 9))
    yield "zst-bomb", zstd(large * 4 + bytes(1024), 1)
    yield "zst-frames", b"".join(zstd(bytes(10 * MIB)) for _ in range(40))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number in range(20_000):
            archive.addfile(tarfile.TarInfo(f"cat/{number}.png"))
    yield "many-empty-files", _gzip(file.getvalue(), 1)


def _headers(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """One field of the first header says what is not so, under a right checksum."""
    fields = {"name": (0, 100), "mode": (100, 8), "size": (124, 12), "mtime": (136, 12),
              "link": (157, 100), "magic": (257, 8), "prefix": (345, 155)}  # fmt: skip
    values = (b"\0", b"7", b"9", b"-", b" ", b"\x80\x7f", b"\xff", b"/", b"\xc3\x28", b"777777777")
    for name, (at, width) in fields.items():
        for number, value in enumerate(values):
            header = bytearray(whole[:512])
            header[at : at + width] = (value * width)[:width]
            yield f"{name}-{number}", _summed(header) + whole[512:]
    yield "wrong-checksum", whole[:148] + b"0000000\0" + whole[156:]
    for records in (
        "size=99999999999999999999\n",
        "size=-1\n",
        "size=abc\n",
        "path=../../etc/passwd\n",
        "path=\n",
        "GNU.sparse.major=1\n",
        "GNU.sparse.map=0,1,2,99999999999\n",
        "GNU.sparse.realsize=99999999999\n",
        "mtime=1e999\n",
        "hdrcharset=BINARY\n",
        "path=" + "a/" * 200_000 + "\n",
        "comment=" + "x" * 3_000_000 + "\n",
        "=\n",
        "no equals sign\n",
    ):
        length = len(records) + 1
        while len(f"{length} {records}") != length:
            length = len(f"{length} {records}")
        for counted in (f"{length} {records}", f"0 {records}", f"9999999 {records}"):
            data = counted.encode()
            info = tarfile.TarInfo("pax")
            info.type, info.size = tarfile.XHDTYPE, len(data)
            padded = data + bytes(-len(data) % 512)
            name = f"pax-{records[:18].strip()}-{counted.split()[0]}"
            yield name, info.tobuf() + padded + whole
    chain = b""
    for _ in range(3_000):
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 10
        chain += info.tobuf() + b"long\0".ljust(512, b"\0")
    yield "names-of-names", chain + whole
    info = tarfile.TarInfo("cat/hole.png")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(info.tobuf())
    header[386:398], header[398:410] = b"00000000000\0", b"00000001000\0"
    header[483:495] = b"77777777777\0"
    yield "sparse", _summed(header) + bytes(512) + whole


def _summed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % (sum(header) & 0o777777)
    return bytes(header)


def _cut(random: Random, whole: bytes) -> Iterator[tuple[str, bytes]]:
    for at in sorted({1, 100, 511, 512, 513, *(random.randrange(len(whole)) for _ in range(10))}):
        for name, pack in (("tar", bytes), ("gz", _gzip), ("zst", zstd)):
            yield f"{name}-cut-before-{at}", pack(whole[:at])
            packed = pack(whole)
            yield f"{name}-cut-after-{at}", packed[: at % len(packed)]
    yield "without-an-end", whole.rstrip(b"\0")
    yield "two-after-each-other", whole + whole
    yield "noise-behind", whole + random.randbytes(30_000)


def _packed(random: Random, whole: bytes) -> Iterator[tuple[str, bytes]]:
    yield "gz-long-name", b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * MIB + _gzip(whole)[10:]
    yield "gz-noise", b"\x1f\x8b\x08\x00" + random.randbytes(9_000)
    yield "gz-wrong-checksum", _gzip(whole)[:-8] + bytes(8)
    yield "gz-no-deflate", b"\x1f\x8b\x08\0" + bytes(6) + zlib.compress(whole)
    yield "zst-skippable", b"\x50\x2a\x4d\x18" + (2**31).to_bytes(4, "little") + zstd(whole)
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    yield "zst-window-of-a-gigabyte", compressor.compress(whole) + compressor.flush()
    header = b"\x28\xb5\x2f\xfd\xe0" + (2**62).to_bytes(8, "little")
    yield "zst-declares-too-much", header + zstd(whole)[6:]
    yield "zst-noise", b"\x28\xb5\x2f\xfd" + random.randbytes(9_000)
    yield "zst-dictionary", b"\x28\xb5\x2f\xfd\x23" + random.randbytes(900)
    yield "zst-in-gz", _gzip(zstd(whole))
