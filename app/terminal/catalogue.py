"""Cards of what the service knows, and what was measured of them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from app.terminal.cells import CandidateName, Row, plain
from app.terminal.layout import new_table
from app.words import memory


def candidates_table(cards: Iterable[Row]) -> Table:
    table = new_table("Candidates", "name", "#weights", "#multiply-adds", "#input", "pretraining")
    for card in cards:
        table.add_row(
            CandidateName(card["name"]),
            f"{card['parameters'] / 1e6:.1f} M",
            f"{card['multiply_adds'] / 1e9:.2f} G",
            f"{card['input_size']} px",
            plain(card["pretraining"]),
        )
    return table


def devices_table(cards: Iterable[Row]) -> Table:
    table = new_table(
        "Devices", "name", "#peak TFLOP/s", "in", "#memory", "#power", "#USD/h", "dated"
    )
    for card in cards:
        table.add_row(
            plain(card["name"]),
            f"{card['peak_flops'] / 1e12:.1f}",
            plain(card["precision"]),
            memory(card["memory_bytes"] / 2**20),
            f"{card['power_watts']:.0f} W",
            f"{card['price_usd_per_hour']:.2f}",
            plain(card["price_date"]),
        )
    return table


def timings_table(items: Iterable[Row]) -> Table:
    table = new_table(
        "Timings",
        *("device", "candidate", "#batch", "#s a step", "#trained/s", "#passed/s", "when"),
    )
    for item in items:
        step, forward = (item[name]["typical"] for name in ("step_seconds", "forward_seconds"))
        table.add_row(
            plain(item["device"]),
            plain(item["candidate"]),
            str(item["batch_size"]),
            f"{step:.3g}",
            f"{item['batch_size'] / step:.3g}",
            f"{item['batch_size'] / forward:.3g}",
            plain(item["created_at"][:10]),
        )
    return table


def recipes_table(cards: Iterable[Row]) -> Table:
    table = new_table("Recipes", "name", "scope", "#batch", "#epochs", "description")
    for card in cards:
        batch, epochs = str(card["batch_size"]), str(card["epochs"])
        table.add_row(
            plain(card["name"]), plain(card["scope"]), batch, epochs, plain(card["description"])
        )
    return table


def probes_table(cards: Iterable[Row]) -> Table:
    table = new_table("Probes", "name", "#input", "weights from", "pinned", "licence")
    for card in cards:
        table.add_row(
            plain(card["name"]),
            f"{card['input_size']} px",
            plain(card["weights"]["source"].partition(":")[0]),
            plain("yes" if card["pinned"] else "no"),
            plain(card["licence"]),
        )
    return table
