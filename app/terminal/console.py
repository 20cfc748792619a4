"""The two streams that people read, and a picture of what was printed."""

from __future__ import annotations

import re

from rich.console import Console

out = Console(highlight=False)


err = Console(stderr=True, highlight=False)


def picture(console: Console, title: str) -> str:
    """What was printed, as an SVG that fetches no font from anywhere."""
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.S)
