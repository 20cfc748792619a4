"""Pixels as the bytes of a PNG: nothing is lost, and the same pixels are the same bytes."""

from __future__ import annotations

import io

from PIL import Image

from app.inputs.pictures import LeftOut

_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"}


def as_png(image: Image.Image) -> bytes:
    """Without what the file said besides: a turn by EXIF has been made, or is not wanted."""
    if image.mode == "F":
        raise LeftOut("with 32-bit pixels of no stated range")
    plain = image.copy() if image.mode in _MODES else image.convert("RGB")
    plain.info = {key: image.info[key] for key in ("transparency",) if key in image.info}
    buffer = io.BytesIO()
    plain.save(buffer, "PNG")
    return buffer.getvalue()
