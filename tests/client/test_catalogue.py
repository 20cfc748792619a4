from __future__ import annotations

from typing import Any

import pytest

from task2vec import SpreadBody, Task2VecError, TimingReport
from tests.api.conftest import Service


def test_a_candidate_of_ones_own_is_added_and_removed(client: Any) -> None:
    card = client.candidates()[0].model_copy(update={"name": "my-own"})
    assert client.add_candidate(card) == card
    assert card in client.candidates()
    with pytest.raises(Task2VecError) as raised:
        client.add_candidate(card)
    assert raised.value.code == "card-exists"
    client.remove_candidate("my-own")
    assert card not in client.candidates()


def test_a_device_of_ones_own_has_estimates_at_its_price(service: Service, client: Any) -> None:
    shipped = next(card for card in client.devices() if card.name == "cpu-2core")
    dear = client.add_device(
        shipped.model_copy(
            update={"name": "dear", "price_usd_per_hour": 2 * shipped.price_usd_per_hour}
        )
    )
    task = service.ready()
    usual, twice = (
        client.estimates(task, device=name, k=1).estimates[0].money_usd.typical
        for name in (shipped.name, dear.name)
    )
    assert twice == pytest.approx(2 * usual)
    client.remove_device(dear.name)
    assert dear.name not in [card.name for card in client.devices()]


def test_a_timing_is_reported_and_listed(client: Any) -> None:
    report = TimingReport(
        device="cpu-2core",
        candidate=client.candidates()[0].name,
        batch_size=16,
        step_seconds=SpreadBody(low=9, typical=10, high=11),
        forward_seconds=SpreadBody(low=1, typical=2, high=3),
    )
    told = client.report_timing(report)
    assert client.timings() == client.timings("cpu-2core") == [told]
    assert client.timings("a10") == []
    client.remove_timing(told.device, told.candidate)
    assert client.timings() == []


def test_recipes_and_probes_are_listed(client: Any) -> None:
    assert "full" in [card.name for card in client.recipes()]
    assert any(probe.pinned for probe in client.probes())
