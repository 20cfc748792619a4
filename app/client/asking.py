"""How the client asks and reads answers: in the service's own types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from app import __version__
from app.api.schemas import Accepted, JobProgress, TaskRow
from app.client.wire import Json, Wire
from app.errors import Unavailable
from app.folder import Archive, archive_bytes

AnswerT = TypeVar("AnswerT", bound=BaseModel)
OnProgress = Callable[[JobProgress], None]
TaskRef = str | TaskRow | Accepted

_ROWS = 200


class Asking:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def close(self) -> None:
        """Of connections; nothing that was asked for ends with it."""
        await self._wire.close()

    async def _task_id(self, task: TaskRef) -> str:
        if isinstance(task, str):
            found: str = (await self._wire.find_task(task))["id"]
            return found
        return task.id

    async def _task_path(self, task: TaskRef) -> str:
        return f"/v1/tasks/{quote(await self._task_id(task), safe='')}"

    async def _ask(self, kind: type[AnswerT], method: str, path: str, **request: Any) -> AnswerT:
        return read(kind, (await self._wire.send(method, path, **request)).content)

    async def _get(self, kind: type[AnswerT], path: str, **params: Any) -> AnswerT:
        return await self._ask(kind, "GET", path, params=params)

    async def _post(self, kind: type[AnswerT], path: str, body: Json) -> AnswerT:
        return await self._ask(kind, "POST", path, json=body)

    async def _rows(self, kind: type[AnswerT], path: str, **params: Any) -> AsyncIterator[AnswerT]:
        async for row in self._wire.pages(path, limit=_ROWS, **params):
            yield read(kind, row)

    async def _upload(
        self,
        kind: type[AnswerT],
        path: str,
        archive: Path | Archive,
        metadata: Json,
        on_progress: OnProgress | None,
    ) -> AnswerT:
        on_sent = partial(telling(archive, on_progress), "sending")
        return read(kind, await self._wire.upload(path, archive, metadata, on_sent=on_sent))


def telling(archive: Path | Archive, on_progress: OnProgress | None) -> Callable[[str, int], None]:
    """Progress of what comes before a job, in bytes."""
    total = archive_bytes(archive) or 0

    def tell(phase: str, done: int) -> None:
        if on_progress is not None:
            said = JobProgress(
                state="queued", phase=phase, done=done, total=total, remaining_seconds=None
            )
            on_progress(said)

    return tell


def read(kind: type[AnswerT], answer: bytes | Json) -> AnswerT:
    try:
        if isinstance(answer, bytes):
            return kind.model_validate_json(answer, extra="ignore")
        return kind.model_validate(answer, extra="ignore")
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise Unavailable(
            "answer-unfit",
            f"The server's answer is no {kind.__name__} of version {__version__} "
            f"({field}: {first['msg']}).",
            "Install the version of the client that the server has; /healthz tells it.",
        ) from error


def said(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value is not None}
