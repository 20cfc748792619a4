"""What is written with `await`, run without a loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.client.blocking import each, run


def test_what_waits_for_a_loop_is_told_of_and_not_left_undone() -> None:
    with pytest.raises(RuntimeError, match="event loop"):
        run(asyncio.sleep(0))


def test_a_list_that_is_left_early_is_closed_at_its_source() -> None:
    closed: list[bool] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(9):
                yield number
        finally:
            closed.append(True)

    listed = each(numbers())
    assert [next(listed), next(listed)] == [0, 1]
    listed.close()  # type: ignore[attr-defined]
    assert closed == [True]
