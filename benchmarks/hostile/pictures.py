"""Images in a good archive: dimensions without end, streams that lie, frames and profiles that
expand."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from random import Random

from PIL import Image, ImageCms

from benchmarks.hostile.plain import FORMATS, files, picture, zipped
from benchmarks.hostile.zips import MIB

SIDES = ((0, 0), (0, 9), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (65_535, 65_535), (9_400, 9_400),
         (89_000_001, 1), (89_000_000, 1), (1, 89_000_000))  # fmt: skip
_LARGE = (9_400, 9_400)  # 88 million pixels, just within the limit of an image


def cases(random: Random) -> Iterator[tuple[str, bytes]]:
    for name, data, ending in _pictures(random):
        yield name, _among_good(random, data, ending)


def bombs(random: Random) -> Iterator[tuple[str, bytes]]:
    """Images of as many pixels as may be, and what expands in their headers."""
    for name, data, ending in chain(_large(), _inflated(random)):
        yield name, _among_good(random, data, ending)
    yield "png-by-itself", png(*_LARGE)
    huge = {f"cat/{i}.png": png(*_LARGE, more=chunk(b"tEXt", b"n\0%d" % i)) for i in range(4)}
    yield "several-at-once", zipped({**files(random), **huge})


def _among_good(random: Random, data: bytes, ending: str) -> bytes:
    return zipped({**files(random), f"cat/hostile.{ending}": data})


def _pictures(random: Random) -> Iterator[tuple[str, bytes, str]]:
    for width, height in SIDES:
        yield f"png-{width}x{height}", png(width, height), "png"
        yield f"gif-{width}x{height}", _patched_size("gif", 6, "<HH", width, height), "gif"
        yield f"bmp-{width}x{height}", _patched_size("bmp", 18, "<ii", width, height), "bmp"
        yield f"jpeg-{width}x{height}", _jpeg_of(width, height), "jpg"
        yield f"webp-{width}x{height}", _webp_of(width, height), "webp"
        yield f"tiff-{width}x{height}", _tiff_of(width, height), "tif"
    yield from _chunks(random)
    yield from _linked(random)
    yield from _polyglots(random)
    for ending in FORMATS:
        whole = picture(random, ending, 48)
        for share in (0.02, 0.1, 0.3, 0.5, 0.8, 0.97):
            yield f"{ending}-cut-{share}", whole[: int(len(whole) * share)], ending
        for other in FORMATS:
            if other != ending:
                yield f"{ending}-called-{other}", whole, other
        for number in range(6):
            at = random.randrange(len(whole) - 8)
            yield (
                f"{ending}-noise-{number}",
                whole[:at] + random.randbytes(8) + whole[at + 8 :],
                ending,
            )


def _large() -> Iterator[tuple[str, bytes, str]]:
    """As large as may be decoded of their kind, or nearly."""
    for name, colour, depth in (("1", 0, 1), ("L", 0, 8), ("16", 0, 16), ("LA", 4, 8),
                                ("RGB", 2, 8), ("RGBA", 6, 8), ("RGB16", 2, 16)):  # fmt: skip
        yield f"png-{name}", png(*_LARGE, colour=colour, depth=depth), "png"
    for orientation in (2, 3, 6, 7):
        exif = Image.Exif()
        exif[274] = orientation
        turned = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        yield f"png-turned-{orientation}", png(*_LARGE, more=turned), "png"
    for side, mode, kind, ending, options in (
        (9_400, "RGB", "JPEG", "jpg", {}),
        (9_400, "CMYK", "JPEG", "jpg", {}),
        (9_400, "L", "JPEG", "jpg", {"progressive": True}),
        (8_300, "RGB", "JPEG", "jpg", {"progressive": True, "subsampling": 0}),
        (7_200, "CMYK", "JPEG", "jpg", {"progressive": True}),
        (9_400, "RGB", "JPEG", "jpg", {"progressive": True}),
        (5_100, "RGB", "WEBP", "webp", {"quality": 1, "method": 0}),
        (5_100, "RGBA", "WEBP", "webp", {"lossless": True, "method": 0}),
        (7_200, "RGB", "TIFF", "tif", {"compression": "tiff_deflate"}),
        (7_200, "CMYK", "TIFF", "tif", {"compression": "packbits"}),
        (7_200, "F", "TIFF", "tif", {"compression": "tiff_lzw"}),
        (8_300, "I;16", "TIFF", "tif", {"compression": "tiff_deflate"}),
        (9_100, "P", "GIF", "gif", {}),
        (9_400, "P", "BMP", "bmp", {}),
    ):
        file = io.BytesIO()
        Image.new(mode, (side, side)).save(file, kind, **options)
        yield f"{ending}-{mode}-{'-'.join(options)}", file.getvalue(), ending
    yield "bmp-run-length", _bmp_run_length(), "bmp"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, colour: int = 2, depth: int = 8, more: bytes = b"") -> bytes:
    """Of black pixels, as many as memory and patience allow for; any size may be declared."""
    rows = min(height, 9_400, max(1, 90_000_000 // max(1, width)))
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    packed = _zeros(1 + min(width, 90_000_000) * channels * depth // 8, rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@cache
def _zeros(width: int, rows: int) -> bytes:
    compressor = zlib.compressobj(1)
    row = bytes(width)
    return b"".join(compressor.compress(row) for _ in range(rows)) + compressor.flush()


def _patched_size(ending: str, at: int, layout: str, width: int, height: int) -> bytes:
    whole = bytearray(picture(Random(1), ending))
    most = 2 ** (8 * struct.calcsize(layout[:2]) - (layout[1] == "i")) - 1
    struct.pack_into(layout, whole, at, min(width, most), min(height, most))
    return bytes(whole)


def _jpeg_of(width: int, height: int) -> bytes:
    whole = bytearray(picture(Random(1), "jpg"))
    at = whole.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", whole, at, min(height, 65_535), min(width, 65_535))
    return bytes(whole)


def _webp_of(width: int, height: int) -> bytes:
    whole = bytearray(picture(Random(1), "webp"))
    at = whole.index(b"\x9d\x01\x2a") + 3
    struct.pack_into("<HH", whole, at, min(width, 16_383), min(height, 16_383))
    return bytes(whole)


def _tiff_of(width: int, height: int) -> bytes:
    whole = bytearray(picture(Random(1), "tif"))
    at = struct.unpack_from("<I", whole, 4)[0]
    for entry in range(struct.unpack_from("<H", whole, at)[0]):
        place = at + 2 + 12 * entry
        tag = struct.unpack_from("<H", whole, place)[0]
        if tag in (256, 257):
            struct.pack_into("<HII", whole, place + 2, 4, 1, width if tag == 256 else height)
    return bytes(whole)


def _bmp_run_length() -> bytes:
    header = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 54 + 1024)
    info = struct.pack("<IiiHHIIiiII", 40, 9_100, 9_100, 1, 8, 1, 0, 0, 0, 256, 0)
    return header + info + bytes(1024) + b"\xff\x00" * 350_000 + b"\x00\x01"


def _inflated(random: Random) -> Iterator[tuple[str, bytes, str]]:
    whole = picture(random)
    inflated = zlib.compress(bytes(200 * MIB), 1)
    for name, kind, data in (
        ("profile", b"iCCP", b"p\0\0" + inflated),
        ("text", b"zTXt", b"t\0\0" + inflated),
        ("itext", b"iTXt", b"t\0\1\0\0\0" + inflated),
    ):
        yield f"png-inflated-{name}", whole[:33] + chunk(kind, data) + whole[33:], "png"
    yield "jpeg-many-scans", _many_scans(), "jpg"
    yield from _frames(700)


def _chunks(random: Random) -> Iterator[tuple[str, bytes, str]]:
    whole = picture(random)
    head, body = whole[:33], whole[33:]
    for name, kind, data in (
        ("exif-noise", b"eXIf", b"MM\0*" + random.randbytes(3_000)),
        ("exif-loop", b"eXIf", b"MM\0*\0\0\0\x08\0\1\x87\x69\0\4\0\0\0\1\0\0\0\x08\0\0\0\x08"),
        ("exif-huge", b"eXIf", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\2\xff\xff\xff\xff\0\0\0\0\0\0\0\0"),
        ("palette-empty", b"PLTE", b""),
        ("palette-odd", b"PLTE", bytes(767)),
        ("transparency-long", b"tRNS", bytes(60_000)),
        ("unknown-critical", b"ABCD", b"x"),
    ):
        yield f"png-{name}", head + chunk(kind, data) + body, "png"
    yield "png-lying-length", head + b"\x7f\xff\xff\xffIDAT" + body[8:], "png"
    yield "png-wrong-checksum", head + body[:-20] + bytes(4) + body[-16:], "png"
    yield "png-many-chunks", head + chunk(b"tEXt", b"a\0b") * 60_000 + body, "png"
    yield "png-two-headers", head + head[8:] + body, "png"
    yield "png-no-data", head + chunk(b"IEND", b""), "png"
    image = Image.new("RGB", (16, 16))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, icc in (("cut", profile[:60]), ("large", profile + bytes(9 * MIB))):
        for ending in ("jpg", "png", "webp", "tif"):
            file = io.BytesIO()
            image.save(file, FORMATS[ending], icc_profile=icc)
            yield f"{ending}-profile-{name}", file.getvalue(), ending
    jpeg = picture(random, "jpg")
    for number, exif in enumerate(
        (b"Exif\0\0", b"Exif\0\0MM\0*" + random.randbytes(60_000), b"Exif\0\0II*\0\xff\xff\xff\xff")
    ):
        segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        yield f"jpeg-exif-{number}", jpeg[:2] + segment + jpeg[2:], "jpg"
    segment = b"\xff\xe2" + struct.pack(">H", 65_000) + b"ICC_PROFILE\0\1\xff" + bytes(64_984)
    yield "jpeg-many-segments", jpeg[:2] + segment * 200 + jpeg[2:], "jpg"


def _many_scans() -> bytes:
    """A progressive image refined again and again."""
    file = io.BytesIO()
    Image.new("L", (3_000, 3_000)).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    at = whole.rindex(b"\xff\xda")
    return whole[:at] + whole[at:-2] * 30 + b"\xff\xd9"


def _frames(size: int) -> Iterator[tuple[str, bytes, str]]:
    frames = [Image.new("RGB", (size, size), (2 * i, 0, 0)) for i in range(60)]
    for kind, ending in (("PNG", "png"), ("GIF", "gif"), ("WEBP", "webp"), ("TIFF", "tif")):
        file = io.BytesIO()
        options = {"compression": "tiff_deflate"} if kind == "TIFF" else {"duration": 1}
        frames[0].save(file, kind, save_all=True, append_images=frames[1:], **options)
        yield f"{ending}-many-frames", file.getvalue(), ending


def _linked(random: Random) -> Iterator[tuple[str, bytes, str]]:
    """What points to places where nothing is, or back to itself."""
    gif = picture(random, "gif")
    at = gif.index(b",", 13)
    yield "gif-frame-outside", gif[: at + 1] + b"\xff\xff\xff\xff" + gif[at + 5 :], "gif"
    yield "gif-endless", gif[:-1] + gif[at:-1] * 30_000, "gif"
    tiff = bytearray(picture(random, "tif"))
    directory = struct.unpack_from("<I", tiff, 4)[0]
    count = struct.unpack_from("<H", tiff, directory)[0]
    struct.pack_into("<I", tiff, directory + 2 + 12 * count, directory)
    yield "tiff-loop", bytes(tiff), "tif"
    struct.pack_into("<I", tiff, 4, 2**31)
    yield "tiff-nowhere", bytes(tiff), "tif"
    plain = picture(random, "tif")
    for number in range(40):
        changed = bytearray(plain)
        changed[directory + random.randrange(2 + 12 * count)] = random.randrange(256)
        yield f"tiff-tag-{number}", bytes(changed), "tif"


def _polyglots(random: Random) -> Iterator[tuple[str, bytes, str]]:
    archive = zipped(files(random))
    for ending in FORMATS:
        yield f"{ending}-then-zip", picture(random, ending) + archive, ending
    yield "pdf", b"%PDF-1.7\n" + picture(random, "jpg"), "jpg"
    yield "html", b"<html><script>alert(1)</script>", "png"
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "png"
    yield "eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n", "png"
    yield "elf", b"\x7fELF" + random.randbytes(300), "png"
    yield "ico", b"\0\0\1\0\1\0" + random.randbytes(60), "png"
    yield "psd", b"8BPS\0\1" + random.randbytes(60), "png"
    yield "nothing", b"", "png"
    yield "one-byte", b"\x89", "png"
    for magic in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a", b"II*\0", b"MM\0+",
                  b"RIFF\xff\xff\xff\xffWEBP", b"RIFF\0\0\0\0WEBPVP8X"):  # fmt: skip
        yield f"magic-{magic[:3].hex()}", magic, "png"
        yield f"magic-noise-{magic[:3].hex()}", magic + random.randbytes(4_000), "png"
