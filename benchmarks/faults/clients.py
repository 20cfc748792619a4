"""Clients that send small real sets all the time, and write down what they were told.

Each request is repeated with its Idempotency-Key until it is answered, here or by another API. Of
the sets some are sent twice, some by the same bytes under another name, some are refused once they
are decoded; of the tasks some are deleted, some get more images.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.images import labelled_files, labelled_zip, make_zip

ENDED = ("succeeded", "refused", "failed", "cancelled")
PATIENCE_SECONDS = 300.0
_REQUEST_SECONDS = 20.0
_PAUSE_SECONDS = 0.4
_THINKS_SECONDS = 1.0
_AWAITED = 5  # tasks of a client that have not ended
_SETS = 40  # different ones: enough to differ, few enough for two clients to send the same bytes


class Unanswered(Exception):
    """A request that was repeated for as long as anybody would wait."""


@dataclass
class Told:
    """Of one task, what the service said."""

    id: str
    job_id: str
    key: str
    name: str
    archive: bytes
    expected: str  # state in which its job is to end
    jobs: dict[str, str | None] = field(default_factory=dict)  # id -> state once it had ended
    vector: str = ""  # digest
    neighbours: list[tuple[str, float]] = field(default_factory=list)
    deleted: bool = False
    grown: bool = False  # more images were sent: what was said of it before is over


@dataclass
class Account:
    """Of all clients together."""

    tasks: list[Told] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)  # by status, or by what went wrong
    broken: list[str] = field(default_factory=list)  # answers that no client should get
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accepted(self, told: Told) -> None:
        with self._lock:
            self.tasks.append(told)

    def count(self, what: str) -> None:
        with self._lock:
            self.answers[what] += 1

    def complain(self, what: str) -> None:
        with self._lock:
            self.broken.append(what)


class Caller:
    """Asks the next API where one does not answer, until one does."""

    def __init__(self, urls: Sequence[str], account: Account, first: int = 0) -> None:
        self._urls = urls
        self._turn = first
        self._account = account
        self._http = httpx.Client(timeout=_REQUEST_SECONDS)

    def __call__(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The first answer that is none of the passing ones (503, 409 of a key in use)."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            url = self._urls[self._turn % len(self._urls)]
            try:
                answer = self._http.request(method, f"{url}/v1{path}", **request)
            except httpx.HTTPError as error:
                self._account.count(type(error).__name__)
            else:
                self._account.count(str(answer.status_code))
                if answer.status_code < 500 and not _passes(answer):
                    return answer
                if answer.status_code != 503 and not _passes(answer):
                    self._account.complain(f"{method} {path}: {answer.status_code} {answer.text}")
                elif "Retry-After" not in answer.headers:
                    self._account.complain(f"{method} {path}: {answer.text}: no Retry-After")
            self._turn += 1
            time.sleep(_PAUSE_SECONDS)
        raise Unanswered(f"{method} {path}")

    def close(self) -> None:
        self._http.close()


def _passes(answer: httpx.Response) -> bool:
    return answer.status_code == 409 and answer.json()["type"].endswith("idempotency-key-in-use")


class Client(threading.Thread):
    def __init__(
        self, urls: Sequence[str], account: Account, seed: int, stopping: threading.Event
    ) -> None:
        super().__init__(name=f"client-{seed}", daemon=True)
        self._chance = random.Random(seed)
        self._account = account
        self._stopping = stopping
        self._call = Caller(urls, account, first=seed)

    def run(self) -> None:
        awaited: list[tuple[Told, str]] = []
        try:
            while not self._stopping.is_set():
                if len(awaited) < _AWAITED:
                    told = self._send(self._chance.randrange(_SETS))
                    if told is not None:
                        awaited.append((told, told.job_id))
                if awaited:
                    told, job_id = one = self._chance.choice(awaited)
                    if (state := self._look(told, job_id)) is not None:
                        awaited.remove(one)
                        if state == "succeeded" and (more := self._follow(told)) is not None:
                            awaited.append((told, more))
                self._stopping.wait(self._chance.uniform(0, 2 * _THINKS_SECONDS))
        except Unanswered as error:
            self._account.complain(f"no answer in {PATIENCE_SECONDS:.0f} s: {error}")
        finally:
            self._call.close()

    def _send(self, number: int) -> Told | None:
        archive, expected = _set(number)
        key = f"{self._chance.getrandbits(128):032x}"
        for _ in range(2 if self._chance.random() < 0.3 else 1):
            answer = self._call("POST", "/tasks", **upload(archive, key, name=f"set {number}"))
            if answer.status_code != 202:
                self._account.complain(f"POST /tasks: {answer.status_code} {answer.text}")
                return None
        accepted = answer.json()
        told = Told(accepted["id"], accepted["job_id"], key, f"set {number}", archive, expected)
        told.jobs[told.job_id] = None
        self._account.accepted(told)
        return told

    def _follow(self, told: Told) -> str | None:
        """What an embedded task is for; a job's id where it got more images."""
        told.vector = digest_of_vector(self._call, told.id)
        told.neighbours = neighbours_of(self._call, told.id, k=10)
        if told.grown:
            return None
        lot = self._chance.random()
        if lot < 0.15:
            answer = self._call("DELETE", f"/tasks/{told.id}")
            if answer.status_code not in (204, 404):  # 404: it was, and the answer was lost
                self._account.complain(f"DELETE: {answer.status_code} {answer.text}")
            told.deleted = True
        elif lot < 0.3:
            return self._grow(told)
        return None

    def _grow(self, told: Told) -> str | None:
        key = f"{self._chance.getrandbits(128):032x}"
        more = labelled_zip(2, 3, seed=1000 + self._chance.randrange(_SETS), size=32)
        told.grown = True
        answer = self._call("POST", f"/tasks/{told.id}/images", **upload(more, key))
        if answer.status_code != 202:
            self._account.complain(f"POST images: {answer.status_code} {answer.text}")
            return None
        told.vector, told.neighbours = "", []
        job_id: str = answer.json()["job_id"]
        told.jobs[job_id] = None
        return job_id

    def _look(self, told: Told, job_id: str) -> str | None:
        """The state in which the job has ended, if it has."""
        answer = self._call("GET", f"/jobs/{job_id}")
        if answer.status_code != 200:
            self._account.complain(f"GET job: {answer.status_code} {answer.text}")
            return "lost"
        state: str = answer.json()["state"]
        if state not in ENDED:
            return None
        told.jobs[job_id] = state
        return state


def upload(archive: bytes, key: str, **metadata: str) -> Mapping[str, Any]:
    return {
        "files": {"archive": ("set.zip", archive, "application/zip")},
        "data": {"metadata": json.dumps(metadata)},
        "headers": {"Idempotency-Key": key},
    }


def digest_of_vector(call: Caller, task_id: str) -> str:
    answer = call("GET", f"/tasks/{task_id}/embedding", params={"format": "npy"})
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.text}"
    return hashlib.sha256(answer.content).hexdigest()


def neighbours_of(call: Caller, task_id: str, *, k: int) -> list[tuple[str, float]]:
    answer = call("GET", f"/tasks/{task_id}/neighbours", params={"k": k})
    if answer.status_code != 200:
        return []
    return [(row["id"], row["distance"]) for row in answer.json()["neighbours"]]


def _set(number: int) -> tuple[bytes, str]:
    """Twelve small pictures of two shapes; of every eighth set one class cannot be decoded."""
    if number % 8:
        return labelled_zip(2, 6, seed=number, size=32), "succeeded"
    files = labelled_files(2, 6, seed=number, size=32)
    torn = {
        path: data[: len(data) // 2] if path.startswith("circle") else data
        for path, data in files.items()
    }
    return make_zip(torn), "refused"
