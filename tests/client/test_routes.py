"""Whatever the service answers, a program can ask."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isclass
from typing import Any, get_type_hints

from pydantic import BaseModel

from app.api.main import create_app
from app.settings import Settings
from task2vec import Task2Vec

METHODS = {
    "GET /v1/tasks": "tasks",
    "POST /v1/tasks": "embed",
    "GET /v1/tasks/{task_id}": "task",
    "PATCH /v1/tasks/{task_id}": "change_task",
    "DELETE /v1/tasks/{task_id}": "delete_task",
    "POST /v1/tasks/{task_id}/images": "add_images",
    "GET /v1/tasks/{task_id}/intake": "intake",
    "GET /v1/tasks/{task_id}/classes": "classes",
    "GET /v1/tasks/{task_id}/embedding": "embedding",
    "GET /v1/tasks/{task_id}/card": "card",
    "GET /v1/tasks/{task_id}/neighbours": "neighbours",
    "POST /v1/neighbours": "neighbours_of_images",
    "POST /v1/distances": "distances",
    "GET /v1/atlas": "atlas",
    "GET /v1/tasks/{task_id}/estimates": "estimates",
    "GET /v1/tasks/{task_id}/plan": "plan",
    "GET /v1/tasks/{task_id}/scores": "score",
    "POST /v1/tasks/{task_id}/scores": "score",
    "GET /v1/estimator": "estimator",
    "GET /v1/outcomes": "outcomes",
    "POST /v1/outcomes": "report_outcome",
    "POST /v1/outcomes:import": "import_outcomes",
    "GET /v1/outcomes/{outcome_id}": "outcome",
    "PATCH /v1/outcomes/{outcome_id}": "release_outcome",
    "POST /v1/tasks/{task_id}/finetunes": "finetune",
    "GET /v1/finetunes": "finetune_runs",
    "GET /v1/finetunes/{finetune_id}": "finetune_run",
    "GET /v1/finetunes/{finetune_id}/events": "curve",
    "GET /v1/finetunes/{finetune_id}/{file}": "save_model",
    "POST /v1/finetunes/{finetune_id}/candidate": "register",
    "POST /v1/finetunes/{finetune_id}/predictions": "predict",
    "GET /v1/predictions/{prediction_id}": "prediction",
    "GET /v1/jobs": "jobs",
    "GET /v1/jobs/{job_id}": "job",
    "DELETE /v1/jobs/{job_id}": "cancel",
    "GET /v1/jobs/{job_id}/events": "follow",
    "GET /v1/candidates": "candidates",
    "POST /v1/candidates": "add_candidate",
    "DELETE /v1/candidates/{name}": "remove_candidate",
    "DELETE /v1/devices/{name}": "remove_device",
    "GET /v1/devices": "devices",
    "POST /v1/devices": "add_device",
    "GET /v1/recipes": "recipes",
    "GET /v1/probes": "probes",
    "GET /v1/timings": "timings",
    "POST /v1/timings": "report_timing",
    "DELETE /v1/timings/{device}/{candidate}": "remove_timing",
    "GET /v1/usage": "usage",
    "GET /v1/tenant": "tenant",
    "PATCH /v1/tenant": "share_outcomes",
    "GET /v1/keys": "keys",
    "POST /v1/keys": "make_key",
    "POST /v1/keys/{key_id}/rotation": "rotate_key",
    "DELETE /v1/keys/{key_id}": "revoke_key",
    "GET /v1/audit": "audit",
    "POST /v1/callback-secret": "renew_callback_secret",
    # `embed` sends large archives this way by itself.
    "POST /v1/uploads": "embed",
    "GET /v1/uploads/{upload_id}": "embed",
    "POST /v1/uploads/{upload_id}/complete": "embed",
    "DELETE /v1/uploads/{upload_id}": "embed",
}
OTHERWISE = {
    "GET /v1/tasks/{task_id}/classes/{number}/strip": "a picture for pages",
    "GET /v1/embeddings": "a file of many: `task2vec export`",
}
# Where another method asks the same route for the rest.
BESIDE = {"POST /v1/neighbours": "neighbours", "GET /v1/jobs/{job_id}": "neighbours_of_images"}
# What a parameter of another name tells.
TOLD_BY = {
    "GET /v1/tasks q": "name",
    "POST /v1/tasks archive": "images",
    "POST /v1/tasks/{task_id}/images archive": "images",
    "POST /v1/neighbours archive": "images",
    "POST /v1/neighbours vector": "task",
    "POST /v1/neighbours domain": "task",
    "POST /v1/neighbours discriminants": "task",
    "POST /v1/neighbours space_id": "task",
    "POST /v1/neighbours among": "among_label_kind",
    "POST /v1/finetunes/{finetune_id}/predictions archive": "images",
    "GET /v1/finetunes task_id": "task",
    "GET /v1/jobs task_id": "task",
    "PATCH /v1/tenant share_outcomes": "shares",
}
NOWHERE = {
    "limit": "methods go on over all pages",
    "cursor": "methods go on over all pages",
    "format": "answers come in types",
    "GET /v1/tasks id_prefix": "`task` takes the beginning of an id",
    "GET /v1/outcomes id_prefix": "answers carry whole ids; people type their beginnings",
    "GET /v1/finetunes id_prefix": "answers carry whole ids; people type their beginnings",
    "GET /v1/jobs id_prefix": "answers carry whole ids; people type their beginnings",
    "PATCH /v1/outcomes/{outcome_id} quarantined": "there is nothing to say but false",
    "POST /v1/uploads filename": "it is the archive's",
    "POST /v1/uploads size_bytes": "it is the archive's",
    "POST /v1/uploads sha256": "it is the archive's",
    "POST /v1/uploads part_bytes": "`embed` cuts the archive itself",
    "POST /v1/uploads parts": "`embed` cuts the archive itself",
}

DOCUMENT = create_app(Settings()).openapi()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    if path.startswith("/v1/")
    for method, operation in methods.items()
}


def test_every_route_has_a_method_or_a_reason_to_have_none() -> None:
    assert OPERATIONS.keys() == METHODS.keys() | OTHERWISE.keys()
    assert not METHODS.keys() & OTHERWISE.keys()
    assert {*METHODS.values(), *BESIDE.values()} <= set(vars(Task2Vec))


def test_what_a_route_may_be_asked_has_a_parameter_or_a_reason_to_have_none() -> None:
    left_out, told_by = set(), {}
    for route, method in METHODS.items():
        parameters = {name for each in (method, BESIDE.get(route)) for name in taken_by(each)}
        for name in asked(OPERATIONS[route]) - parameters:
            at = f"{route} {name}"
            if TOLD_BY.get(at) in parameters:
                told_by[at] = TOLD_BY[at]
            else:
                left_out.add(name if name in NOWHERE else at)
    assert left_out == NOWHERE.keys()
    assert told_by == TOLD_BY


def asked(operation: dict[str, Any]) -> set[str]:
    """Its query's parameters, and the fields of all bodies that it reads."""
    parameters = operation.get("parameters", [])
    names = {each["name"] for each in parameters if each["in"] == "query"}
    for body in operation.get("requestBody", {}).get("content", {}).values():
        names |= fields(body["schema"])
    return names


def fields(schema: dict[str, Any]) -> set[str]:
    """With those of an upload's metadata in its place."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    parts = dict(schema.get("properties", {}))
    metadata = parts.pop("metadata", {})
    return parts.keys() | (fields(metadata) if metadata else set())


def taken_by(method: str | None) -> Iterator[str]:
    """Its parameters, with their fields where they are bodies."""
    if method is None:
        return
    for name, kind in get_type_hints(getattr(Task2Vec, method)).items():
        if name == "return":
            continue
        yield name
        if isclass(kind) and issubclass(kind, BaseModel):
            yield from kind.model_fields
