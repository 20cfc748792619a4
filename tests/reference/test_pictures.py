from __future__ import annotations

import pytest
from PIL import Image

from app.reference import pictures


def plain(colour: str, size: tuple[int, int] = (12, 12)) -> Image.Image:
    return Image.new("RGBA", size, colour)


def striped(*colours: str) -> bytes:
    """Vertical stripes of equal width."""
    image = Image.new("RGBA", (12 * len(colours), 12))
    for i, colour in enumerate(colours):
        image.paste(plain(colour), (12 * i, 0))
    return pictures.to_png(image)


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ("#e00000", "red"),
        ("#e00018", "red"),
        ("#f08000", "orange"),
        ("#f0e000", "yellow"),
        ("#00a020", "green"),
        ("#2060e0", "blue"),
        ("#9020c0", "purple"),
    ],
)
def test_the_dominant_hue_has_its_everyday_name(colour: str, name: str) -> None:
    assert pictures.dominant_hue(striped(colour, colour, "white")) == name


@pytest.mark.parametrize("colours", [("white", "black"), ("red", "blue"), ("red", "white", "grey")])
def test_no_hue_dominates_grey_or_equal_or_little_coloured_pictures(colours: tuple[str]) -> None:
    assert pictures.dominant_hue(striped(*colours)) is None


def test_transparent_pixels_do_not_count() -> None:
    image = plain("#00000000", (40, 40))
    image.paste(plain("red", (8, 8)), (0, 0))
    data = pictures.to_png(image)
    assert pictures.dominant_hue(data) == "red"
    assert pictures.colours(data) == "red"


def test_colours_of_a_flag_are_all_that_cover_enough_of_it() -> None:
    assert pictures.colours(striped("black", "yellow", "red")) == "black|red|yellow"
    sliver = ["blue"] * 19 + ["white"]
    assert pictures.colours(striped(*sliver)) == "blue"


def test_asymmetry_is_zero_for_a_mirror_image_of_itself() -> None:
    assert pictures.asymmetry(striped("red", "white", "red")) == 0
    assert pictures.asymmetry(striped("red", "white", "black")) > 0.1


def test_lightness_and_detail_order_pictures() -> None:
    assert pictures.lightness(striped("black")) == 0
    assert pictures.lightness(striped("white")) == pytest.approx(1)
    assert pictures.detail(striped("grey")) == 0
    assert pictures.detail(striped("black", "white", "black")) > pictures.detail(
        striped("black", "white")
    )


def test_quarter_turns_go_round() -> None:
    data = striped("red", "white", "blue")
    upright, left, over, right = (change(data) for change in pictures.QUARTER_TURNS.values())
    assert pictures.opened(upright) == pictures.opened(data)
    assert pictures.opened(left).size == (12, 36)
    assert pictures.opened(left).getpixel((0, 0)) == (0, 0, 255, 255)
    assert pictures.opened(over).getpixel((0, 0)) == (0, 0, 255, 255)
    assert pictures.opened(right).getpixel((0, 0)) == (255, 0, 0, 255)
