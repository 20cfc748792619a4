"""What is written with `await`, as ordinary functions.

Over `transports.Blocking` it never waits for a loop, so one step takes it to its end. It needs no
loop, and does not mind one that runs (a notebook's).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Facade(Protocol):
    @property
    def _awaited(self) -> Any: ...


def run(awaitable: Awaitable[T]) -> T:
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("this waits for an event loop")


def each(items: AsyncIterator[T]) -> Iterator[T]:
    try:
        while True:
            try:
                item = run(anext(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(items.aclose())  # type: ignore[attr-defined]


def answering(
    method: Callable[Concatenate[Any, P], Awaitable[T]],
) -> Callable[Concatenate[Facade, P], T]:
    @wraps(method)
    def call(facade: Facade, /, *args: P.args, **named: P.kwargs) -> T:
        return run(method(facade._awaited, *args, **named))

    return call


def listing(
    method: Callable[Concatenate[Any, P], AsyncIterator[T]],
) -> Callable[Concatenate[Facade, P], Iterator[T]]:
    @wraps(method)
    def call(facade: Facade, /, *args: P.args, **named: P.kwargs) -> Iterator[T]:
        return each(method(facade._awaited, *args, **named))

    return call
