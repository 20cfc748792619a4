"""What the service tells its operators: event logs as JSON lines (as plain ones on a terminal), and
Prometheus metrics.

An event is a dotted name and flat fields, `log_event("task.embedded", task_id=..., seconds=...)`.
Nothing leaves the machine.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter, Histogram

_logger = logging.getLogger("task2vec")

SEARCH_SECONDS = Histogram(
    "task2vec_search_seconds",
    "Time to rank a task's neighbours",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)
REQUEST_SECONDS = Histogram(
    "task2vec_request_seconds",
    "Time until a request's answer began",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
BLOB_ERRORS = Counter("task2vec_blob_errors", "Calls of the blob store that failed")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _PlainLines(logging.Formatter):
    """For whoever watches."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        parts = [
            self.formatTime(record, "%H:%M:%S"),
            *([] if record.levelno == logging.INFO else [record.levelname.lower()]),
            record.getMessage(),
            *(f"{name}={value}" for name, value in fields.items()),
        ]
        line = _harmless(" ".join(parts))
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *map(_harmless, trace)])
        return line


def _harmless(text: str) -> str:
    """What came from elsewhere steers no terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def configure_logging(level: str = "INFO") -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainLines() if sys.stderr.isatty() else _JsonLines())
    _logger.handlers[:] = [handler]
    _logger.setLevel(level)
    _logger.propagate = False


def log_event(
    event: str, *, level: int = logging.INFO, exc_info: bool = False, **fields: Any
) -> None:
    _logger.log(level, event, exc_info=exc_info, extra={"fields": fields})
