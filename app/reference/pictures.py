"""What can be read off a small picture, and how it can be changed: questions no source answers."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Floats = npt.NDArray[np.float64]
Change = Callable[[bytes], bytes]

_HUES = {"red": 15, "orange": 42, "yellow": 68, "green": 165, "blue": 255, "purple": 345}
"""Upper bound of each name on the colour wheel, in degrees; red also takes what lies above 345."""


def to_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def from_grey(values: npt.NDArray[Any]) -> bytes:
    """A PNG of (height, width) values in 0..255."""
    return to_png(Image.fromarray(values.astype(np.uint8)))


def opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGBA")


def on_white(image: Image.Image) -> Image.Image:
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return paper.convert("RGB")


def dominant_hue(data: bytes) -> str | None:
    """The hue of most coloured pixels; None where no hue has the majority or few are coloured."""
    hue, saturation, value = _visible_hsv(data)
    coloured = (saturation > 0.35) & (value > 0.25)
    if coloured.mean() < 0.4:
        return None
    counts = _hue_counts(hue[coloured])
    name = max(counts, key=counts.__getitem__)
    return name if counts[name] > coloured.sum() / 2 else None


def colours(data: bytes, least_share: float = 0.08) -> str:
    """All colours that cover at least `least_share` of the picture, joined by `|`."""
    hue, saturation, value = _visible_hsv(data)
    black = value <= 0.25
    white = ~black & (saturation <= 0.25)
    counts = _hue_counts(hue[~black & ~white]) | {
        "black": int(black.sum()),
        "white": int(white.sum()),
    }
    return "|".join(sorted(name for name, n in counts.items() if n >= least_share * hue.size))


def lightness(data: bytes) -> float:
    """Mean luma of what is visible, 0 to 1."""
    return float(_visible_hsv(data, mode="L")[0].mean())


def detail(data: bytes) -> float:
    """Mean size of the step between neighbouring pixels."""
    luma = _luma(data)
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())


def asymmetry(data: bytes) -> float:
    """Mean difference between the picture and its mirror image (left and right exchanged)."""
    luma = _luma(data)
    return float(np.abs(luma - luma[:, ::-1]).mean())


def turned(data: bytes, quarter_turns: int) -> bytes:
    return to_png(on_white(opened(data)).rotate(90 * quarter_turns, expand=True))


QUARTER_TURNS: dict[str, Change] = {
    name: partial(turned, quarter_turns=turns)
    for turns, name in enumerate(("upright", "left", "over", "right"))
}


def blurred(data: bytes, radius: float) -> bytes:
    return to_png(on_white(opened(data)).filter(ImageFilter.GaussianBlur(radius)))


def inverted(data: bytes) -> bytes:
    return to_png(Image.eval(on_white(opened(data)), lambda value: 255 - value))


def _visible_hsv(data: bytes, mode: str = "HSV") -> tuple[Floats, ...]:
    """Channels of the pixels that are not transparent; hue in degrees, all else 0 to 1."""
    image = opened(data)
    seen = np.asarray(image.getchannel("A")) > 127
    channels = np.atleast_3d(np.asarray(image.convert("RGB").convert(mode), dtype=np.float64))
    scales = (360 / 255, 1 / 255, 1 / 255) if mode == "HSV" else (1 / 255,)
    return tuple(channels[..., i][seen] * scale for i, scale in enumerate(scales))


def _hue_counts(hue: Floats) -> dict[str, int]:
    bins = np.searchsorted(list(_HUES.values()), hue) % len(_HUES)
    counts = np.bincount(bins, minlength=len(_HUES))
    return dict(zip(_HUES, counts.tolist(), strict=True))


def _luma(data: bytes) -> Floats:
    return np.asarray(on_white(opened(data)).convert("L"), dtype=np.float64) / 255
