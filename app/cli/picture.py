"""What commands draw, and what they print as a picture: in the formats that a file's name may ask
for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from app import terminal
from app.cli.shared import require_extras
from app.errors import InvalidRequest
from app.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png", ".pdf")
PRINTED_FORMATS = (".svg", ".png")
_FONT = "DejaVu Sans Mono"  # matplotlib brings it
_SCALE = 2
_MOST_PIXELS = 2**25
"""Some 270 lines of a hundred letters, and 300 MB while they are drawn."""


def require_picture(path: Path | None) -> None:
    """Before anything is asked or computed for it.

    Unavailable without the extra, InvalidRequest for a file of another kind.
    """
    if path is None:
        return
    require_extras("bench")
    _require_format(path, FORMATS)


def tell_of_picture(path: Path | None) -> None:
    """Once it is drawn, below what else is printed."""
    if path is not None:
        terminal.out.print()
        terminal.out.print(terminal.plain(f"The picture: {path}"), soft_wrap=True)


def require_printed(path: Path) -> None:
    """Likewise of what a command prints; only pixels need the extra."""
    _require_format(path, PRINTED_FORMATS)
    if path.suffix == ".png":
        require_extras("bench")


def _require_format(path: Path, formats: tuple[str, ...]) -> None:
    if path.suffix not in formats:
        raise InvalidRequest(
            "format-unknown",
            f"{path.name} is no picture that can be drawn.",
            f"Name a file that ends in {', '.join(formats)}.",
        )


def draw_printed(path: Path) -> None:
    """What went to `terminal.out` since it records.

    Raises InvalidRequest where that is nothing, or too much.
    """
    if not terminal.out.export_text(clear=False):
        raise InvalidRequest(
            "nothing-to-draw",
            "The command printed no table.",
            "Leave out --json, or leave out --picture.",
        )
    drawn = terminal.picture(terminal.out, "task2vec")
    picture = _pixels(drawn) if path.suffix == ".png" else drawn.encode()
    with whole(path) as part:
        part.write_bytes(picture)


def _pixels(svg: str) -> bytes:
    import matplotlib as mpl  # an extra's, as the next
    from resvg_py import svg_to_bytes

    width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', svg)[0])
    if width * height * _SCALE**2 > _MOST_PIXELS:
        raise InvalidRequest(
            "picture-too-large",
            "The command printed too much for a picture of pixels.",
            "Name a file that ends in .svg, or ask for less.",
        )
    fonts = Path(mpl.get_data_path(), "fonts", "ttf").glob("DejaVuSansMono*.ttf")
    return svg_to_bytes(
        # Nothing is cut off by the paths that clip each word, and they take most of the time.
        svg_string=re.sub(r' clip-path="[^"]*"', "", svg),
        font_files=[str(path) for path in fonts],
        monospace_family=_FONT,
        serif_family=_FONT,  # what is taken where a font is not there: that of the title
        zoom=_SCALE,
    )


def save(figure: Figure, path: Path) -> None:
    """With letters as shapes, whatever the user's own settings say: they look alike everywhere."""
    from matplotlib import rc_context  # an extra's

    with rc_context({"svg.fonttype": "path"}), whole(path) as scratch:
        figure.savefig(scratch, format=path.suffix.removeprefix("."), dpi=160)


def blank(width: float, height: float) -> Figure:
    """In inches."""
    from matplotlib.figure import Figure  # an extra's

    return Figure((width, height), layout="constrained")
