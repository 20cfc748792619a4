"""Small real images and archives for every suite: drawn, encoded and packed, never mocked."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import zstandard
from PIL import Image, ImageDraw, ImageFont

Colour = str | int | tuple[int, ...]

SHAPES = ("circle", "square", "triangle", "cross", "ring", "stripes")


def encode(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def png(colour: Colour = "red", size: tuple[int, int] | int = 32) -> bytes:
    """A plain image of one colour; other colours are other bytes."""
    width, height = (size, size) if isinstance(size, int) else size
    return encode(Image.new("RGB", (width, height), colour))


def make_zip(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data, compression)
    return buffer.getvalue()


def make_tar(files: Mapping[str, bytes], compression: str = "") -> bytes:
    """A tar; `compression` is "", "gz" or "zst"."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compression == "gz" else "w") as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    if compression == "zst":
        return zstandard.ZstdCompressor().compress(buffer.getvalue())
    return buffer.getvalue()


def drawing(kind: str, seed: int | str, size: int = 64) -> Image.Image:
    """A shape of SHAPES, or any text as a glyph, in random colours, place, size and tilt."""
    rng = random.Random(f"{kind}/{seed}")
    paper = tuple(rng.randint(190, 255) for _ in range(3))
    ink = tuple(rng.randint(0, 110) for _ in range(3))
    image = Image.new("RGB", (size, size), paper)
    draw = ImageDraw.Draw(image)
    radius = size * rng.uniform(0.22, 0.36)
    x, y = (rng.uniform(radius + 2, size - radius - 2) for _ in range(2))
    box = (x - radius, y - radius, x + radius, y + radius)
    stroke = max(2, round(radius / 3))
    if kind == "circle":
        draw.ellipse(box, fill=ink)
    elif kind == "square":
        draw.rectangle(box, fill=ink)
    elif kind == "triangle":
        draw.polygon([(x, box[1]), (box[2], box[3]), (box[0], box[3])], fill=ink)
    elif kind == "cross":
        draw.line((box[0], y, box[2], y), fill=ink, width=stroke)
        draw.line((x, box[1], x, box[3]), fill=ink, width=stroke)
    elif kind == "ring":
        draw.ellipse(box, outline=ink, width=stroke)
    elif kind == "stripes":
        for offset in range(0, round(2 * radius), 2 * stroke):
            draw.line((box[0], box[1] + offset, box[2], box[1] + offset), fill=ink, width=stroke)
    else:
        font = ImageFont.load_default(2 * radius)
        draw.text((x, y), kind, fill=ink, font=font, anchor="mm")
    return image.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, fillcolor=paper)


def labelled_files(
    classes: int | Sequence[str] = 3, per_class: int = 6, seed: int = 0, size: int = 64
) -> dict[str, bytes]:
    """`label/number.png` -> bytes: the first shapes of SHAPES, then letters, or the kinds named.

    Classes can be told apart, images of one class differ, and the same arguments give the same
    bytes.
    """
    letters = [chr(ord("A") + i) for i in range(26)]
    kinds = (*SHAPES, *letters)[:classes] if isinstance(classes, int) else classes
    return {
        f"{kind}/{i:03d}.png": encode(drawing(kind, f"{seed}/{i}", size))
        for kind in kinds
        for i in range(per_class)
    }


def labelled_zip(
    classes: int | Sequence[str] = 3, per_class: int = 6, seed: int = 0, size: int = 64
) -> bytes:
    return make_zip(labelled_files(classes, per_class, seed, size))
