"""One file's bytes -> RGB pixels."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from app.embedding.squash import squash

Pixels = npt.NDArray[np.uint8]

PREPROCESSING = "exif-white-squash-bicubic-1"
"""Names how bytes become pixels; changes whenever the same bytes would give other pixels."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

_MAGIC = (
    ("JPEG", (b"\xff\xd8\xff",)),
    ("PNG", (b"\x89PNG\r\n\x1a\n",)),
    ("BMP", (b"BM",)),
    ("GIF", (b"GIF87a", b"GIF89a")),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)
_DRAFT_MARGIN = 2  # a JPEG is decoded at no less than this times the target, the rest is bicubic
_WHITE_16_BIT = 65535
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # of a pixel; others 4

# Pillow only warns about an image between its limit and twice that; here that is an error.
warnings.simplefilter("error", Image.DecompressionBombWarning)

# glibc gives what is larger than 32 MiB back to the system when it is freed, and may keep the rest:
# of a large image in many blocks up to half a gigabyte, in each thread that decodes.
Image.core.set_block_size(48 * 2**20)  # type: ignore[attr-defined]


class UnreadableImageError(Exception):
    """The file is no image that is read here; says why, to its owner."""


class Budget:
    """So many bytes at most are held at a time by images that are being decoded; one of more is
    decoded alone."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes
        self._taken = 0
        self._given_back = threading.Condition()

    @contextmanager
    def take(self, n_bytes: int) -> Iterator[None]:
        with self._given_back:
            self._given_back.wait_for(
                lambda: not self._taken or self._taken + n_bytes <= self._n_bytes
            )
            self._taken += n_bytes
        try:
            yield
        finally:
            with self._given_back:
                self._taken -= n_bytes
                self._given_back.notify_all()


MAX_HELD_BYTES = 384 * 2**20
MAX_SIDE = 65_535
"""Of a JPEG it cannot be longer; a decoder holds some bytes for every row, and two rows more."""

_BUDGET = Budget(MAX_HELD_BYTES)


def image_format(data: bytes) -> str | None:
    """The format that the first bytes show, whatever the file is called."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for name, magics in _MAGIC if data.startswith(magics)), None)


def pixel_count(data: bytes) -> int:
    """Of an image file that can be decoded: width times height, by its header."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return image.width * image.height


def decode_image(data: bytes, size: int, max_pixels: int) -> Pixels:
    """(size, size, 3) uint8 RGB: the first frame, upright, on white, squashed to a square.

    JPEGs are decoded at a reduced scale where they are large (`draft`), everything is resized by
    bicubic interpolation with antialiasing. 16-bit grey is scaled to 8 bits. Colour profiles are
    not applied. Raises UnreadableImageError.
    """
    format_ = image_format(data)
    if format_ is None:
        raise UnreadableImageError(f"not an image of a format read here ({', '.join(FORMATS)})")
    try:
        image = _open(data, format_, max_pixels)
        whole = image.size
        image.draft(None, (_DRAFT_MARGIN * size, _DRAFT_MARGIN * size))
        with _BUDGET.take(_bytes_held(image, data, whole)):
            square = squash(image, size, _rgb)
        return np.asarray(square, dtype=np.uint8)
    except (UnreadableImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"its {format_} header cannot be read") from error
    except Exception as error:  # bytes nobody wrote on purpose bring out anything in a decoder
        why = str(error) or type(error).__name__
        raise UnreadableImageError(f"cannot be decoded: {why}") from error


def _open(data: bytes, format_: str, max_pixels: int) -> Image.Image:
    """The image with its header read and nothing decoded yet."""
    image = Image.open(io.BytesIO(data), formats=(format_,))
    if max(image.size) > MAX_SIDE:
        raise UnreadableImageError(
            f"of its {image.width} x {image.height} pixels one side is longer than {MAX_SIDE:,}"
        )
    limit = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
    if image.width * image.height > limit:
        raise UnreadableImageError(
            f"its {image.width} x {image.height} pixels are more than {limit:,}"
        )
    return image


def _bytes_held(image: Image.Image, data: bytes, whole: tuple[int, int]) -> int:
    """By Pillow and the libraries under it, at the most; `whole` is the size before `draft`.

    UnreadableImageError where that is too much.
    """
    pixels, whole_pixels = image.width * image.height, whole[0] * whole[1]
    held = pixels * _MODE_BYTES.get(image.mode, 4)
    match image.format:
        case "JPEG" if "progressive" in image.info or _has_scans_of_parts(data, image):
            # All coefficients are held until the last scan, whatever the image is reduced to.
            held += whole_pixels * 2 * len(image.getbands())
        case "WEBP":  # two canvases, and a copy as bytes
            held += pixels * 12
        case "TIFF":  # a strip may be the whole; one that lies on its side is turned by Pillow
            held += pixels * (8 if image.getexif().get(ExifTags.Base.Orientation, 1) != 1 else 4)
        case "GIF" | "BMP":
            held += pixels * 4
    if held > MAX_HELD_BYTES:
        raise UnreadableImageError(
            f"to decode its {whole[0]} x {whole[1]} pixels takes {held >> 20:,} MiB of memory, "
            f"more than {MAX_HELD_BYTES >> 20:,}"
        )
    return held


def _has_scans_of_parts(data: bytes, image: Image.Image) -> bool:
    """Whether the first scan of a JPEG holds some of its colours only."""
    at = 2
    while data[at + 1 : at + 2] != b"\xda" and at < len(data):
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return data[at + 4 : at + 5] != bytes([len(image.getbands())])


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey; Pillow's own conversion would cut off everything above 255."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > _WHITE_16_BIT:
        raise UnreadableImageError(
            "32-bit pixels without a stated range; save it with 8 or 16 bits"
        )
    return Image.fromarray(
        ((values.astype(np.uint32) * 255 + _WHITE_16_BIT // 2) // _WHITE_16_BIT).astype(np.uint8)
    )
