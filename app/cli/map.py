"""The atlas as a picture: where tasks lie, which clusters they form, which of them are your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.cli.picture import blank, save

# Told apart by most people who see few colours (Okabe and Ito).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b3a800", "#8c6bb1")
_NONE = "#9a9a9a"
_INK = "#202020"
_LARGEST = 60.0  # of a point, in square points
_LEAST = 6.0
_NAMED = 30  # so many of one's own tasks are named, or their names cover the map
_VECTORS = 5_000  # more points are a picture inside a file of shapes, which viewers could not bear


def draw_map(atlas: dict[str, Any], path: Path) -> None:
    """`atlas` as `GET /v1/atlas` has it, with all of its points."""
    points = atlas["items"]
    figure = blank(8.0, 7.0)
    place = figure.subplots()
    largest = max((point["complexity"] for point in points), default=0.0) or 1.0
    for library, edge, width in ((True, "none", 0.0), (False, _INK, 1.0)):
        some = [point for point in points if point["library"] == library]
        place.scatter(
            [point["x"] for point in some],
            [point["y"] for point in some],
            s=[_LEAST + _LARGEST * point["complexity"] / largest for point in some],
            c=[_colour(point["cluster"]) for point in some],
            edgecolors=edge,
            linewidths=width,
            alpha=0.8,
            rasterized=len(points) > _VECTORS,
            label="the library's" if library else "yours",
        )
    for cluster in atlas["clusters"]:
        place.annotate(
            _plain(cluster["name"]),
            (cluster["position"][0], _top(cluster, points)),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            color=_INK,
            bbox={
                "boxstyle": "round",
                "fc": "white",
                "ec": _colour(cluster["number"]),
                "alpha": 0.85,
            },
        )
    own = [point for point in points if not point["library"]]
    for point in own[:_NAMED]:
        place.annotate(
            _plain(point["name"]),
            (point["x"], point["y"]),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=8,
            weight="bold",
            color=_INK,
        )
    place.set(xticks=[], yticks=[])
    place.set_aspect("equal", adjustable="datalim")  # else of a flat map little more than a strip
    place.spines[:].set_visible(False)
    place.set_title(_title(atlas), fontsize=9, loc="left")
    if own and len(own) < len(points):
        keys = place.legend(frameon=False, fontsize=8, loc="lower right")
        for key in keys.legend_handles:
            if key is not None:
                key.set(sizes=[30], facecolor=_NONE)
    save(figure, path)


def _top(cluster: dict[str, Any], points: list[dict[str, Any]]) -> float:
    """Where its highest point lies: a name in the middle would cover the small ones."""
    inside = [point["y"] for point in points if point["cluster"] == cluster["number"]]
    return float(max(inside, default=cluster["position"][1]))


def _title(atlas: dict[str, Any]) -> str:
    parts = [f"{atlas['tasks']:,} tasks", "nearer: more alike", "larger: more complex"]
    if atlas["trustworthiness"] is not None:
        parts.append(f"trustworthiness {atlas['trustworthiness']:.2f}")
    return ", ".join(parts)


def _colour(cluster: int | None) -> str:
    return _NONE if cluster is None else COLOURS[cluster % len(COLOURS)]


def _plain(name: str) -> str:
    """matplotlib takes what stands between dollars for mathematics."""
    return name.replace("$", r"\$")
