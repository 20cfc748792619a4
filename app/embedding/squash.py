"""A decoded image -> a small RGB square, a tile at a time.

What is done to every pixel (turned upright, to 8 bits, on white) would take several copies of the
whole; of a tile it takes little. The square is the same, bit for bit: tiles meet where the
blocks meet of which `reduce` takes the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from PIL import ExifTags, Image

_GAP = 3.0  # box-reduce first where more than this times the target stays for bicubic
_TILE_PIXELS = 2**19

# By EXIF orientation: how `ImageOps.exif_transpose` turns an image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)
_FROM_THE_RIGHT = (2, 3, 7, 8)
_FROM_BELOW = (3, 4, 6, 7)

Box = tuple[int, int, int, int]


def squash(
    image: Image.Image, size: int, to_rgb: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """(size, size) of the whole image, upright, antialiased; `to_rgb` looks at pixels one by one.

    As `resize` with a `reducing_gap` of 3.
    """
    image.load()  # orientation may stand behind the pixels
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    width, height = image.size[::-1] if orientation in _ON_ITS_SIDE else image.size
    across, down = (int(length / size / _GAP) or 1 for length in (width, height))
    reduced = Image.new("RGB", (-(-width // across), -(-height // down)))
    for box in _tiles(width, height, across, down):
        tile = image.crop(_source(box, image.size, orientation))
        if orientation in _TURNS:
            tile = tile.transpose(_TURNS[orientation])
        tile = to_rgb(tile).reduce((across, down))
        reduced.paste(tile, (box[0] // across, box[1] // down))
    whole = (0.0, 0.0, width / across, height / down)
    return reduced.resize((size, size), Image.Resampling.BICUBIC, whole)


def _tiles(width: int, height: int, across: int, down: int) -> Iterator[Box]:
    """All of the upright image; each but the last ones holds whole blocks of `across` x `down`."""
    tile_width = max(1, min(width, _TILE_PIXELS // down) // across) * across
    tile_height = max(1, _TILE_PIXELS // tile_width // down) * down
    for top in range(0, height, tile_height):
        for left in range(0, width, tile_width):
            yield left, top, min(left + tile_width, width), min(top + tile_height, height)


def _source(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Where that part of the upright image lies in the one that is stored."""
    left, top, right, bottom = box
    width, height = size
    if orientation in _ON_ITS_SIDE:
        left, top, right, bottom = top, left, bottom, right
    if orientation in _FROM_THE_RIGHT:
        left, right = width - right, width - left
    if orientation in _FROM_BELOW:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
