"""One file's bytes become the pixels a person would see."""

from __future__ import annotations

import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from app.embedding import image as image_module
from app.embedding import squash as squash_module
from app.embedding.image import Budget, UnreadableImageError, decode_image, image_format
from tests.images import drawing, encode

SIZE = 32
ANY_SIZE = 10**8


def pixels(data: bytes, size: int = SIZE) -> np.ndarray:
    decoded = decode_image(data, size, ANY_SIZE)
    assert decoded.shape == (size, size, 3)
    assert decoded.dtype == np.uint8
    return decoded


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def reference(image: Image.Image, size: int = SIZE) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("format_", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 6),
        ("JPEG", {"quality": 95}, 6),
        ("GIF", {}, 6),
    ],
)
def test_format_is_read(format_: str, options: dict[str, object], tolerance: float) -> None:
    image = drawing("triangle", 1)
    data = encode(image, format_, **options)
    assert image_format(data) == format_
    assert distance(pixels(data), reference(image)) <= tolerance


def test_size_is_squashed_and_antialiased() -> None:
    checks = np.indices((200, 400)).sum(axis=0) % 2 * 255
    grey = pixels(encode(Image.fromarray(checks.astype(np.uint8))))
    assert np.abs(grey.astype(int) - 127).max() <= 3


@pytest.mark.parametrize("value", [0, 1000, 32768, 65535])
@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_cut(value: int, format_: str) -> None:
    data = encode(Image.fromarray(np.full((8, 8), value, np.uint16)), format_)
    assert set(pixels(data).ravel()) == {round(value / 257)}


def test_16_bit_grey_in_32_bit_tiff_is_scaled() -> None:
    data = encode(Image.fromarray(np.full((8, 8), 65535 // 2, np.int32)), "TIFF")
    assert set(pixels(data).ravel()) == {127}


@pytest.mark.parametrize("array", [np.full((8, 8), 70_000, np.int32), np.ones((8, 8), np.float32)])
def test_32_bit_pixels_of_unknown_range_are_unreadable(array: np.ndarray) -> None:
    with pytest.raises(UnreadableImageError, match="range"):
        pixels(encode(Image.fromarray(array), "TIFF"))


def test_alpha_is_composited_on_white() -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 8, 16))
    image.paste((0, 0, 0, 128), (8, 0, 16, 8))
    shown = pixels(encode(image), 16)
    assert tuple(shown[8, 2]) == (0, 0, 255)
    assert tuple(shown[13, 13]) == (255, 255, 255)
    assert tuple(shown[2, 13]) == (127, 127, 127)


def test_grey_alpha_is_composited_on_white() -> None:
    assert (pixels(encode(Image.new("LA", (8, 8), (0, 0)))) == 255).all()


def test_palette_transparency_is_composited_on_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 128, 0])
    image.paste(0, (0, 0, 4, 8))
    for format_ in ("PNG", "GIF"):
        shown = pixels(encode(image, format_, transparency=1))
        assert tuple(shown[16, 2]) == (255, 0, 0)
        assert tuple(shown[16, 29]) == (255, 255, 255)


def test_palette_alpha_bytes_are_composited_on_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0])
    assert (pixels(encode(image, transparency=bytes([51]))) == 204).all()


def test_transparent_colour_key_is_composited_on_white() -> None:
    data = encode(Image.new("RGB", (8, 8), (1, 2, 3)), transparency=(1, 2, 3))
    assert (pixels(data) == 255).all()


def test_one_bit_and_grey_become_rgb() -> None:
    assert (pixels(encode(Image.new("1", (8, 8), 1))) == 255).all()
    assert (pixels(encode(Image.new("L", (8, 8), 77))) == 77).all()


def test_cmyk_is_converted() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for format_ in ("JPEG", "TIFF"):
        red, green, blue = pixels(encode(image, format_))[8, 8]
        assert red > 240
        assert max(green, blue) < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(orientation: int) -> None:
    upright = drawing("F", 1)
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format_ in ("PNG", "JPEG", "WEBP"):
        options = {"lossless": True} if format_ == "WEBP" else {}
        shown = pixels(encode(stored, format_, exif=exif, **options))
        assert distance(shown, reference(upright)) <= (0 if format_ != "JPEG" else 6)


def test_gif_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert tuple(pixels(data)[4, 4]) == (255, 0, 0)


def test_bytes_held_at_a_time_are_bounded() -> None:
    budget = Budget(10)
    held: list[int] = []
    most: list[int] = []
    failed: list[int] = []

    def decode(pixels: int) -> None:
        try:
            with budget.take(pixels):
                held.append(pixels)
                most.append(sum(held))
                if pixels == 3:
                    raise ValueError
                time.sleep(0.001)
                held.remove(pixels)
        except ValueError:
            held.remove(pixels)
            failed.append(pixels)

    sizes = [4, 6, 25, 1, 5, 3, 9, 2] * 5
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, sizes))
    assert len(most) == len(sizes)
    assert len(failed) == 5
    assert max(total for total in most if total != 25) <= 10  # 25 is alone: it makes no other sum


@pytest.mark.parametrize(
    ("options", "bytes_a_pixel"), [({}, 4 / 64), ({"progressive": True}, 6 + 4 / 64)]
)
def test_a_large_jpeg_counts_as_what_is_held_of_it(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], bytes_a_pixel: float
) -> None:
    taken: list[int] = []

    class Noted(Budget):
        def take(self, n_bytes: int) -> AbstractContextManager[None]:
            taken.append(n_bytes)
            return super().take(n_bytes)

    monkeypatch.setattr(image_module, "_BUDGET", Noted(10**6))
    pixels(encode(drawing("ring", 1, 1024), "JPEG", **options))
    assert taken == [int(1024 * 1024 * bytes_a_pixel)]


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_an_image_that_takes_too_much_memory_is_unreadable_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    monkeypatch.setattr(image_module, "MAX_HELD_BYTES", 1000)
    monkeypatch.setattr(image_module, "squash", lambda *_: 1 / 0)
    with pytest.raises(UnreadableImageError, match="of memory"):
        pixels(encode(drawing("ring", 1, 100), format_))


@pytest.mark.parametrize("size", [(65_536, 1), (1, 65_536)])
def test_an_image_with_a_side_that_is_too_long_is_unreadable(size: tuple[int, int]) -> None:
    with pytest.raises(UnreadableImageError, match="one side is longer"):
        pixels(encode(Image.new("1", size)))
    assert pixels(encode(Image.new("1", (max(1, size[0] - 1), max(1, size[1] - 1))))).shape


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]),
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(1, 8),
    st.integers(1, 24),
    st.integers(64, 5000),
)
def test_a_tile_at_a_time_gives_the_pixels_of_the_whole(
    mode: str, width: int, height: int, orientation: int, size: int, tile: int
) -> None:
    rng = np.random.default_rng(width * height)
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 4), np.uint8), "RGBA")
    if mode == "I;16":
        stored = Image.fromarray(rng.integers(0, 65536, (height, width), np.uint16))
    else:
        stored = (noise if mode in ("RGBA", "LA") else noise.convert("RGB")).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.info["exif"] = exif.tobytes()
    whole = image_module._rgb(ImageOps.exif_transpose(stored)).resize(
        (size, size), Image.Resampling.BICUBIC, reducing_gap=3.0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(squash_module, "_TILE_PIXELS", tile)
        by_tiles = squash_module.squash(stored, size, image_module._rgb)
    assert (np.asarray(by_tiles) == np.asarray(whole)).all()


def test_large_jpeg_by_draft_looks_like_the_whole_one() -> None:
    image = drawing("ring", 3, size=1600)
    assert distance(pixels(encode(image, "JPEG", quality=95)), reference(image)) < 2


def test_same_bytes_give_same_pixels() -> None:
    data = encode(drawing("cross", 2, size=500), "JPEG")
    assert (pixels(data) == pixels(data)).all()


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_cut_image_is_unreadable(format_: str) -> None:
    data = encode(drawing("circle", 1), format_)
    with pytest.raises(UnreadableImageError):
        pixels(data[: len(data) // 2])


def test_text_is_no_image() -> None:
    with pytest.raises(UnreadableImageError, match="not an image"):
        pixels(b"hello")


def png_of_declared_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [1001, 9_500, 30_000])
def test_decompression_bomb_is_unreadable_before_it_is_decoded(side: int) -> None:
    """Below Pillow's own limit, where Pillow warns, and where it raises."""
    with pytest.raises(UnreadableImageError, match=r"pixels|exceeds limit"):
        decode_image(png_of_declared_size(side, side), SIZE, 1_000_000)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_pillow_warns_of_is_unreadable_though_the_caller_allows_it() -> None:
    with pytest.raises(UnreadableImageError, match=r"pixels|exceeds limit"):
        decode_image(png_of_declared_size(9_900, 9_900), SIZE, 10**8)


WHOLE = {
    name: encode(drawing("square", 1, 24), name) for name in ("PNG", "JPEG", "GIF", "TIFF", "WEBP")
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_damaged_image_is_read_or_unreadable(format_: str, data: st.DataObject) -> None:
    broken = bytearray(WHOLE[format_])
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_image(bytes(broken), SIZE, 10**6)
    except UnreadableImageError as error:
        assert str(error)
        assert " at 0x" not in str(error)
