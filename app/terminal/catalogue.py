"""Cards of what the service knows, and what was measured of them."""

from __future__ import annotations

from collections.abc import Iterable

from app.terminal.cells import CandidateName, Row, plain
from app.terminal.layout import Listing
from app.words import memory


def candidates_table(cards: Iterable[Row]) -> Listing:
    return Listing(
        "Candidates",
        {
            "name": lambda card: CandidateName(card["name"]),
            "#weights": lambda card: f"{card['parameters'] / 1e6:.1f} M",
            "#multiply-adds": lambda card: f"{card['multiply_adds'] / 1e9:.2f} G",
            "#input": lambda card: f"{card['input_size']} px",
            "pretraining": lambda card: plain(card["pretraining"]),
        },
        cards,
        spare=("pretraining", "#multiply-adds", "#input"),
    )


def devices_table(cards: Iterable[Row]) -> Listing:
    return Listing(
        "Devices",
        {
            "name": lambda card: plain(card["name"]),
            "#peak TFLOP/s": lambda card: f"{card['peak_flops'] / 1e12:.1f}",
            "in": lambda card: plain(card["precision"]),
            "#memory": lambda card: memory(card["memory_bytes"] / 2**20),
            "#power": lambda card: f"{card['power_watts']:.0f} W",
            "#USD/h": lambda card: f"{card['price_usd_per_hour']:.2f}",
            "dated": lambda card: plain(card["price_date"]),
        },
        cards,
        spare=("dated", "in"),
    )


def timings_table(items: Iterable[Row]) -> Listing:
    return Listing(
        "Timings",
        {
            "device": lambda item: plain(item["device"]),
            "candidate": lambda item: CandidateName(item["candidate"]),
            "#batch": lambda item: str(item["batch_size"]),
            "#s a step": lambda item: f"{item['step_seconds']['typical']:.3g}",
            "#trained/s": lambda item: _a_second(item, "step_seconds"),
            "#passed/s": lambda item: _a_second(item, "forward_seconds"),
            "when": lambda item: plain(item["created_at"][:10]),
        },
        items,
        spare=("when", "#batch"),
        empty="Nothing was measured: `task2vec time DEVICE` does, on the machine that it is.",
    )


def _a_second(item: Row, of: str) -> str:
    return f"{item['batch_size'] / item[of]['typical']:.3g}"


def recipes_table(cards: Iterable[Row]) -> Listing:
    return Listing(
        "Recipes",
        {
            "name": lambda card: plain(card["name"]),
            "scope": lambda card: plain(card["scope"]),
            "#batch": lambda card: f"≤ {card['batch_size']}",
            "#epochs": lambda card: str(card["epochs"]),
            "description": lambda card: plain(card["description"]),
        },
        cards,
        caption="Small sets take smaller batches, where a recipe asks for steps an epoch.",
    )


def probes_table(cards: Iterable[Row]) -> Listing:
    return Listing(
        "Probes",
        {
            "name": lambda card: plain(card["name"]),
            "#input": lambda card: f"{card['input_size']} px",
            "weights from": lambda card: plain(card["weights"]["source"].partition(":")[0]),
            "pinned": lambda card: plain("yes" if card["pinned"] else "no"),
            "licence": lambda card: plain(card["licence"]),
        },
        cards,
    )
