"""What the hostile is made from: small pictures, packed as everybody packs them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from random import Random

import zstandard
from PIL import Image

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF"}


def picture(random: Random, ending: str = "png", size: int = 24, mode: str = "RGB") -> bytes:
    image = Image.frombytes("RGB", (size, size), random.randbytes(3 * size * size)).convert(mode)
    file = io.BytesIO()
    image.save(file, FORMATS[ending])
    return file.getvalue()


def files(random: Random) -> dict[str, bytes]:
    """A set that is as it should be."""
    return {
        f"{label}/{i}.{ending}": picture(random, ending)
        for label in ("cat", "dog")
        for i, ending in enumerate(FORMATS)
    }


def zipped(content: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for path, data in content.items():
            archive.writestr(zipfile.ZipInfo(path), data, method)
    return file.getvalue()


def tarred(content: Mapping[str, bytes], format_: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as archive:
        for path, data in content.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zstd(data: bytes, level: int = 3) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(data)
