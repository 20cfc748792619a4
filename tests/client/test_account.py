from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.api.conftest import Service


def test_keys_are_made_rotated_and_revoked(client: Any) -> None:
    made = client.make_key("pipeline", scope="read", expires_in_days=1)
    assert made.secret.startswith(made.prefix)
    successor = client.rotate_key(made.id, overlap_hours=1)
    assert successor.secret != made.secret
    client.revoke_key(successor.id)
    first, second = client.keys()
    assert (first.id, first.replaced_by) == (made.id, successor.id)
    assert second.revoked_at is not None
    assert client.keys(prefix=made.prefix) == [first]


def test_outcomes_are_shared_and_no_longer(client: Any) -> None:
    assert client.tenant().share_outcomes is False
    assert client.share_outcomes(True).share_outcomes is True
    assert client.tenant().share_outcomes is True
    assert client.share_outcomes(False).share_outcomes is False


def test_what_was_done_is_listed_newest_first(service: Service, client: Any) -> None:
    task = service.ready()
    client.delete_task(task)
    first, second = client.audit()
    assert (first.action, first.object_id) == ("DELETE /v1/tasks/{task_id}", task)
    assert (second.action, second.status) == ("POST /v1/tasks", 202)
    assert list(client.audit(refused=True)) == []
    assert list(client.audit(since=datetime.now(UTC) + timedelta(hours=1))) == []


def test_a_secret_of_callbacks_is_told_once_for_each_renewal(client: Any) -> None:
    first, second = (client.renew_callback_secret().secret for _ in range(2))
    assert first.startswith("whsec_")
    assert first != second
