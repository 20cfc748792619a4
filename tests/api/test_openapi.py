"""Whatever the OpenAPI document allows, or just not, gets an answer that the document declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.specs.openapi import checks as openapi

from app.api.main import create_app
from app.store import workers
from tests.api.conftest import LIBRARY_SPACE, Service

HOST = "localhost"  # a loopback server hears no name that is not this machine's


@pytest.fixture
def described(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The document of a service that holds two ready tasks, one of which a generator can hit."""
    monkeypatch.setattr(workers, "FRESH_SECONDS", 3600.0)  # however slow the machine is
    task_id = service.ready(seed=1, space_id=LIBRARY_SPACE)
    service.ready(seed=2, space_id=LIBRARY_SPACE)
    service.warm_up()
    job_id = service.client.get(f"/v1/tasks/{task_id}").json()["job_id"]
    app = create_app(service.resources.settings)
    loaded = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": HOST})

    @loaded.hook
    def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> Any:
        """Half of the random ids give way to real ones; nothing deletes those."""
        real = {"task_id": task_id, "job_id": job_id}
        if path_parameters and context.operation.method != "delete":
            return {
                name: real.get(name, value) if len(str(value)) % 2 else value
                for name, value in path_parameters.items()
            }
        return path_parameters

    yield loaded
    shutdown_lifespans()


@pytest.mark.parametrize("mode", GenerationMode)
def test_answers_are_as_declared_and_never_a_server_error(
    described: Any, mode: GenerationMode
) -> None:
    operations = [result.ok() for result in described.get_all_operations()]
    assert operations
    for operation in operations:
        try:
            _try_out(operation, mode)
        except Unsatisfiable:  # nothing about this operation can be got wrong
            assert mode is GenerationMode.NEGATIVE


def _try_out(operation: Any, mode: GenerationMode) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=15,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def try_out(case: Any) -> None:
        case.call_and_validate(
            base_url=f"http://{HOST}",
            checks=[
                checks.not_a_server_error,
                openapi.status_code_conformance,
                openapi.content_type_conformance,
                openapi.response_headers_conformance,
                openapi.response_schema_conformance,
                openapi.negative_data_rejection,
            ],
        )

    try_out()


def test_every_operation_declares_what_it_refuses(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/v1"):
                declared = set(operation["responses"])
                assert {"400", "401", "403", "422"} <= declared, (method, path)
                assert ("{" in path) <= ("404" in declared), (method, path)
                assert ("requestBody" in operation) <= ({"413", "415"} <= declared), (method, path)
