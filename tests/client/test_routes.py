"""Whatever the service answers, a program can ask."""

from __future__ import annotations

from pathlib import Path

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
    "GET /v1/finetunes/{finetune_id}/events": "the curve stands in `finetune_run`, progress in `follow`",
    "GET /v1/embeddings": "a file of many: `task2vec export`",
}


def test_every_route_has_a_method_or_a_reason_to_have_none(tmp_path: Path) -> None:
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    routes = {
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        if path.startswith("/v1/")
        for method in methods
    }
    assert routes == METHODS.keys() | OTHERWISE.keys()
    assert not METHODS.keys() & OTHERWISE.keys()
    assert set(METHODS.values()) <= set(vars(Task2Vec))
