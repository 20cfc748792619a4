"""The client for programs, twice: one that is awaited, and one that is not."""

from __future__ import annotations

import os
from typing import Self

from app.client.blocking import answering, listing
from app.client.operations import Operations
from app.client.transports import Blocking, Looped
from app.client.wire import ATTEMPTS, DEADLINE_SECONDS, Wire

LOCAL_SERVER = "http://127.0.0.1:8000"


class AsyncTask2Vec(Operations):
    """`server` and `key` are those of TASK2VEC_SERVER and TASK2VEC_KEY, if left out.

    A request is made up to `attempts` times, where that does nothing twice; `deadline_seconds` is
    how long all of them together may stand still.
    """

    def __init__(
        self,
        server: str | None = None,
        key: str | None = None,
        *,
        attempts: int = ATTEMPTS,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        super().__init__(
            Wire(
                Looped,
                *_address(server, key),
                attempts=attempts,
                deadline_seconds=deadline_seconds,
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Task2Vec:
    __doc__ = AsyncTask2Vec.__doc__

    def __init__(
        self,
        server: str | None = None,
        key: str | None = None,
        *,
        attempts: int = ATTEMPTS,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._awaited = Operations(
            Wire(
                Blocking,
                *_address(server, key),
                attempts=attempts,
                deadline_seconds=deadline_seconds,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    close = answering(Operations.close)

    embed = answering(Operations.embed)
    add_images = answering(Operations.add_images)
    task = answering(Operations.task)
    tasks = listing(Operations.tasks)
    change_task = answering(Operations.change_task)
    delete_task = answering(Operations.delete_task)
    intake = answering(Operations.intake)
    classes = answering(Operations.classes)
    card = answering(Operations.card)
    embedding = answering(Operations.embedding)

    neighbours = answering(Operations.neighbours)
    neighbours_of_images = answering(Operations.neighbours_of_images)
    distances = answering(Operations.distances)
    atlas = answering(Operations.atlas)

    estimates = answering(Operations.estimates)
    plan = answering(Operations.plan)
    score = answering(Operations.score)
    estimator = answering(Operations.estimator)

    report_outcome = answering(Operations.report_outcome)
    import_outcomes = answering(Operations.import_outcomes)
    outcomes = listing(Operations.outcomes)
    outcome = answering(Operations.outcome)
    release_outcome = answering(Operations.release_outcome)

    finetune = answering(Operations.finetune)
    finetune_run = answering(Operations.finetune_run)
    finetune_runs = listing(Operations.finetune_runs)
    curve = listing(Operations.curve)
    save_model = answering(Operations.save_model)
    register = answering(Operations.register)
    predict = answering(Operations.predict)
    prediction = answering(Operations.prediction)

    job = answering(Operations.job)
    jobs = listing(Operations.jobs)
    follow = listing(Operations.follow)
    wait = answering(Operations.wait)
    cancel = answering(Operations.cancel)

    candidates = answering(Operations.candidates)
    add_candidate = answering(Operations.add_candidate)
    remove_candidate = answering(Operations.remove_candidate)
    devices = answering(Operations.devices)
    add_device = answering(Operations.add_device)
    remove_device = answering(Operations.remove_device)
    recipes = answering(Operations.recipes)
    probes = answering(Operations.probes)
    timings = answering(Operations.timings)
    report_timing = answering(Operations.report_timing)
    remove_timing = answering(Operations.remove_timing)

    usage = answering(Operations.usage)
    tenant = answering(Operations.tenant)
    share_outcomes = answering(Operations.share_outcomes)
    keys = answering(Operations.keys)
    make_key = answering(Operations.make_key)
    rotate_key = answering(Operations.rotate_key)
    revoke_key = answering(Operations.revoke_key)
    audit = listing(Operations.audit)
    renew_callback_secret = answering(Operations.renew_callback_secret)


def _address(server: str | None, key: str | None) -> tuple[str, str | None]:
    return (
        server or os.environ.get("TASK2VEC_SERVER", LOCAL_SERVER),
        key or os.environ.get("TASK2VEC_KEY"),
    )
