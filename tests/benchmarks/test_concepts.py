"""The figures of docs/concepts.md, and what the page says of them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.concepts import PAIRS, Shelf, draw_complexity, draw_neighbours, draw_parts

PAGE = (Path(__file__).parents[2] / "docs" / "concepts.md").read_text(encoding="utf-8")


def test_figures_are_drawn_and_show_what_the_page_says(tmp_path: Path) -> None:
    shelf = Shelf.read()
    alike = draw_parts(shelf, tmp_path / "parts.svg")
    near = draw_neighbours(shelf, tmp_path / "neighbours.svg")
    complexity = draw_complexity(shelf, tmp_path / "complexity.svg")
    for name in PAIRS:
        assert f"({alike[name]['label']:.2f})" in PAGE
    assert alike["digits-b"]["domain"] > 0.7 > 0.2 > alike["fashion-kinds-a"]["domain"]
    assert next(iter(near)) == "digits-b"
    assert f"lie at {near['digits-b']:.1f}, as `digits-a` and" in PAGE.replace("\n", " ")
    assert min(complexity, key=complexity.__getitem__) == "textures"
    for figure in ("parts", "neighbours", "complexity"):
        assert (tmp_path / f"{figure}.svg").read_text().startswith("<?xml")
        assert f"]({figure}.svg)" in PAGE
