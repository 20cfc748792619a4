"""Fine-tuning runs, the worker's part played by hand: their model is a few bytes."""

from __future__ import annotations

import hashlib
import io
from typing import Any

from app.catalogue import CandidateCard
from app.store import cards, finetunes
from app.store.outcomes import Run
from tests.api.conftest import Service

EPOCH = {
    "number": 1,
    "steps": 8,
    "learning_rate": 1e-3,
    "seconds": 1.0,
    "training_loss": 0.7,
    "loss": 0.7,
    "accuracy": 0.5,
    "information": None,
}
RESULT = {
    "ended": "recipe",
    "epochs": 1,
    "steps": 8,
    "seconds": 1.0,
    "verdict": {
        "images": 8,
        "accuracy": 0.5,
        "interval": [0.2, 0.8],
        "calibration": 0.1,
        "classes": [{"name": "cat", "images": 4, "recall": 0.5, "precision": None}],
    },
}


def names_of(service: Service) -> list[str]:
    """Candidates with weights."""
    with service.resources.database.session(read_only=True) as session:
        found = cards.list_cards(session, "local", CandidateCard)
    return [card.name for card in found if card.weights.source != "none"]


def ask(service: Service, task: str, candidate: str, **asked: Any) -> Any:
    body = {"candidate": candidate, **asked}
    return service.client.post(f"/v1/tasks/{task}/finetunes", json=body)


def read(service: Service, finetune_id: str) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(f"/v1/finetunes/{finetune_id}").json()
    return found


def finish(service: Service, job_id: str) -> None:
    """As a worker does it, its model included."""
    token = service.start(job_id)
    model = service.resources.blobs.put(io.BytesIO(b"weights"))
    names = {"model": "", "task": "", "recipe": "", "device": "", "metric": "accuracy"}
    with service.resources.database.session() as session:
        finetunes.finish(
            session,
            job_id,
            token,
            files={"model": model},
            curve=[EPOCH],
            result=RESULT,
            run=Run({**names, "stop_reason": "cap"}, 0.5, {}),
            forecast=None,
        )


def lose_model(service: Service) -> None:
    """As no part of the service would."""
    service.resources.blobs.delete(hashlib.sha256(b"weights").hexdigest())


def ended(service: Service, task: str, candidate: str | None = None) -> str:
    """The id of a run on the task that has a model."""
    accepted = ask(service, task, candidate or names_of(service)[0]).json()
    finish(service, accepted["job_id"])
    finetune_id: str = accepted["id"]
    return finetune_id
