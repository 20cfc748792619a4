"""What commands draw: matplotlib's figures, in the formats that a file's name may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shared import require_extras
from app.errors import InvalidRequest
from app.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png", ".pdf")


def require_picture(path: Path | None) -> None:
    """Before anything is asked or computed for it.

    Unavailable without the extra, InvalidRequest for a file of another kind.
    """
    if path is None:
        return
    require_extras("bench")
    if path.suffix not in FORMATS:
        raise InvalidRequest(
            "format-unknown",
            f"{path.name} is no picture that can be drawn.",
            f"Name a file that ends in {', '.join(FORMATS)}.",
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
