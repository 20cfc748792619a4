"""A run's learning curve as a picture: losses, accuracy, and the information in the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.cli.picture import blank, save
from app.errors import InvalidRequest


def draw_curve(run: dict[str, Any], path: Path) -> None:
    """`run` as `GET /v1/finetunes/{id}` has it.

    Raises InvalidRequest where there is nothing to draw yet.
    """
    curve = run["curve"]
    if not curve:
        raise InvalidRequest(
            "no-curve", f"The run {run['id']} has no epoch yet.", "Draw it when it has one."
        )
    epochs = [epoch["number"] for epoch in curve]
    traced = [epoch for epoch in curve if epoch["information"] is not None]
    figure = blank(9.6 if traced else 6.4, 3.2)
    places = figure.subplots(1, 3 if traced else 2)
    for name, label, colour in (
        ("training_loss", "learnt", "#2a5bb4"),
        ("loss", "held out", "#c2571a"),
    ):
        places[0].plot(epochs, [each[name] for each in curve], label=label, color=colour)
    places[0].set_title("loss, nats", fontsize=9)
    places[0].legend(frameon=False, fontsize=8)
    places[1].plot(epochs, [100 * each["accuracy"] for each in curve], color="#c2571a")
    places[1].set_title("accuracy on held-out images, %", fontsize=9)
    places[1].set_ylim(0, 102)
    if traced:
        places[2].plot(
            [each["number"] for each in traced],
            [each["information"] for each in traced],
            color="#3b7d3b",
            marker="o",
            ms=3,
        )
        places[2].set_yscale("log")
        places[2].set_title("information in the weights", fontsize=9)
    for place in places:
        place.set_xlabel("epoch", fontsize=8)
        place.tick_params(labelsize=8)
        place.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{run['candidate']} by {run['recipe']}", fontsize=10)
    save(figure, path)
