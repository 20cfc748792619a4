"""Zips: lying directories, overlapping entries, bombs, paths that lead out, zip64 where none is."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import zipfile
from collections.abc import Iterator
from random import Random

from benchmarks.hostile.plain import files, picture, tarred, zipped

_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
MIB = 2**20

PATHS = (
    "../a.png",
    "cat/../../a.png",
    "/etc/a.png",
    "C:\\a.png",
    "c:a.png",
    "..\\a.png",
    "\\\\host\\a.png",
    "//host/a.png",
    ".",
    "..",
    "/",
    "cat//a.png",
    "cat/./a.png",
    "./cat/a.png",
    "cat/a.png/",
    "cat\\a.png",
    " /a.png",
    "cat/ ",
    "cat/a\tb.png",
    "cat/a\nb.png",
    "cat/\x1b[2J.png",
    "cat/\x7f.png",
    "cat/\u202egnp.exe",
    "cat/\u200b.png",
    "cat/\ufeffa.png",
    "cat/e\u0301.png",
    "\u00e9/a.png",
    "cat/" + "\U0001f408" * 200 + ".png",
    "cat/" + "a" * 1019,
    "cat/" + "a" * 1020,
    "cat/" + "a" * 60_000,
    "a/" * 500 + "a.png",
    "CON/aux.png",
    "cat/a.png:stream",
    "cat/%2e%2e/a.png",
    "=cmd|' /C calc'!A0/a.png",
    "<script>alert(1)</script>/a.png",
    "cat/${jndi:ldap:x}.png",
    "__MACOSX/._a.png",
    "cat/Thumbs.db",
    "labels.csv/a.png",
    "cat/labels.csv",
)


def cases(random: Random) -> Iterator[tuple[str, bytes]]:
    plain = files(random)
    whole = zipped(plain)
    for number, path in enumerate(PATHS):
        yield f"path-{number}", zipped({**plain, path: picture(random)})
    yield from _patched(whole)
    yield from _cut(random, whole)
    yield from _modes(plain)
    yield from _arranged(random, plain, whole)


def _patched(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """One field of a header says what is not so."""
    fields = {
        "central": (_CENTRAL, {4: 2, 6: 2, 8: 2, 10: 2, 16: 4, 20: 4, 24: 4, 28: 2, 30: 2, 32: 2,
                               34: 2, 36: 2, 38: 4, 42: 4}),
        "local": (_LOCAL, {4: 2, 6: 2, 8: 2, 14: 4, 18: 4, 22: 4, 26: 2, 28: 2}),
        "end": (_END, {4: 2, 6: 2, 8: 2, 10: 2, 12: 4, 16: 4, 20: 2}),
    }  # fmt: skip
    for name, (magic, places) in fields.items():
        at = whole.index(magic)
        for offset, width in places.items():
            most = 256**width - 1
            for value in (0, 1, 12, 99, most // 2, most - 1, most):
                changed = bytearray(whole)
                changed[at + offset : at + offset + width] = value.to_bytes(width, "little")
                yield f"{name}-{offset}-{value}", bytes(changed)


def _cut(random: Random, whole: bytes) -> Iterator[tuple[str, bytes]]:
    ends = {whole.index(magic) + more for magic in (_LOCAL, _CENTRAL, _END) for more in (0, 2, 20)}
    for at in sorted(ends | {random.randrange(len(whole)) for _ in range(12)}):
        yield f"cut-{at}", whole[:at]
        yield f"headless-{at}", whole[at:]
    yield "end-only", whole[whole.index(_END) :]
    yield "two-ends", whole + whole[whole.index(_END) :]
    yield "behind-it-noise", whole + random.randbytes(70_000)
    yield "before-it-noise", b"PK\x03\x04" + random.randbytes(5_000) + whole


def bombs(random: Random) -> Iterator[tuple[str, bytes]]:
    zeros = bytes(70 * MIB)
    yield "one-entry-too-large", zipped({"cat/a.png": zeros})
    yield "many-large-entries", zipped({f"cat/{i}.png": zeros[: 20 * MIB] for i in range(8)})
    inner = zipped({"cat/a.png": zeros[: 60 * MIB]})
    for depth in range(4):
        inner = zipped({f"cat/{depth}.zip": inner, "dog/a.png": picture(random)})
        yield f"nested-{depth}", inner
    yield "many-empty-entries", zipped({f"cat/{i}.png": b"" for i in range(20_000)})
    directory = zipped({"cat/a.png": b""})
    entry = directory[directory.index(_CENTRAL) : directory.index(_END)]
    many = entry * 250_000
    end = struct.pack("<4sHHHHIIH", _END, 0, 0, 0xFFFF, 0xFFFF, len(many), 0, 0)
    yield "many-entries-of-nothing", _LOCAL + bytes(26) + many + end
    yield "a-gzip-in-it", zipped({"cat/a.png": gzip.compress(zeros[: 60 * MIB])})
    yield "kernel-of-many-names", _overlapping(random, 5 * MIB, 400)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield f"method-{method}", zipped({"cat/a.png": zeros[: 60 * MIB]}, method)


def _overlapping(random: Random, size: int, n: int) -> bytes:
    """Many entries of the directory that all lead to the same bytes."""
    whole = zipped({"cat/a.png": picture(random)[:60] + bytes(size)})
    at = whole.index(_CENTRAL)
    entry = whole[at : whole.index(_END)]
    entries = b"".join(
        entry[:28] + struct.pack("<H", 12) + entry[30:46] + f"cat/{i:08d}".encode()
        for i in range(n)
    )
    end = struct.pack("<4sHHHHIIH", _END, 0, 0, n, n, len(entries), at, 0)
    return whole[:at] + entries + end


def _modes(plain: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    kinds = (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, 0o170000)
    for kind in kinds:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for path, data in plain.items():
                archive.writestr(zipfile.ZipInfo(path), data)
            info = zipfile.ZipInfo("cat/special.png")
            info.external_attr = (kind | 0o777) << 16
            archive.writestr(info, b"/etc/passwd")
        yield f"mode-{kind:o}", file.getvalue()


def _arranged(random: Random, plain: dict[str, bytes], whole: bytes) -> Iterator[tuple[str, bytes]]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("cat/a.png", "cat/a.png", "CAT/A.PNG", "cat/./a.png"):
            archive.writestr(zipfile.ZipInfo(name), picture(random))
    yield "same-name-twice", file.getvalue()
    yield "file-and-folder", zipped({"cat": b"x", "cat/a.png": picture(random), "cat/": b""})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for path, data in plain.items():
            with archive.open(zipfile.ZipInfo(path), "w", force_zip64=True) as entry:
                entry.write(data)
    yield "zip64-that-is-one", file.getvalue()
    at = whole.index(_CENTRAL)
    for sizes in ((2**63, 2**63, 2**63), (2**40, 1, 0), (2**64 - 1, 2**64 - 1, 2**64 - 1)):
        name_length, _ = struct.unpack_from("<HH", whole, at + 28)
        extra = struct.pack("<HHQQQ", 1, 24, *sizes)
        changed = bytearray(whole)
        struct.pack_into("<II", changed, at + 20, 0xFFFFFFFF, 0xFFFFFFFF)
        struct.pack_into("<I", changed, at + 42, 0xFFFFFFFF)
        struct.pack_into("<H", changed, at + 30, len(extra))
        changed[at + 46 + name_length : at + 46 + name_length] = extra
        end = changed.rindex(_END)
        size = struct.unpack_from("<I", changed, end + 12)[0]
        struct.pack_into("<I", changed, end + 12, size + len(extra))
        yield f"zip64-{sizes[0]}", bytes(changed)
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 2**62, 2**62, 2**62, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(whole), 1)
    yield "zip64-end", whole[:-22] + end64 + locator + whole[-22:]
    yield "zip64-end-nowhere", whole[:-22] + locator + whole[-22:]
    changed = bytearray(whole)
    while (at := changed.find(_CENTRAL)) >= 0:
        changed[at + 8] |= 1
        changed[at : at + 4] = b"pk\x01\x02"
    yield "encrypted", bytes(changed).replace(b"pk\x01\x02", _CENTRAL)
    changed = bytearray(whole)
    for _ in range(3):
        at = changed.index(_CENTRAL)
        struct.pack_into("<I", changed, at + 16, random.getrandbits(32))
        changed[at : at + 4] = b"pk\x01\x02"
    yield "wrong-checksums", bytes(changed).replace(b"pk\x01\x02", _CENTRAL)
    yield "a-picture-first", picture(random) + whole
    yield "a-tar-first", tarred(plain) + whole
    yield "a-zip-and-a-tar", whole + tarred(plain)
    yield "long-comment", whole[:-2] + struct.pack("<H", 65_535) + b"x" * 65_535
