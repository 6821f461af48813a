"""Structured logs: one JSON object a line, to standard error. Never the text of a message, never a secret."""

import logging
import sys
import time
import traceback
from typing import Any

import orjson

from domain.acting import TENANT
from serve_app.ingress.context import Visit
from serve_app.redaction import KNOWN, install

_MORE = ("conversation_id", "turn_id")  # what records of ours carry beside their words


def write(event: str, **fields: Any) -> None:
    """One line. Fields that are None are left out."""
    line = {"at": round(time.time(), 3), "event": event, **{k: v for k, v in fields.items() if v is not None}}
    stream = sys.__stderr__  # Serve puts its own logger, which drops INFO, in the place of sys.stderr
    if stream is not None:
        stream.write(KNOWN.masked(orjson.dumps(line, default=str).decode()) + "\n")


def access(visit: Visit, method: str, route: str, status: int, seconds: float) -> None:
    write(
        "request",
        request_id=visit.request_id,
        traceparent=visit.traceparent,
        tenant=visit.tenant,
        conversation=visit.conversation,
        turn=visit.turn,
        method=method,
        route=route,
        status=status,
        ms=round(seconds * 1000, 2),
    )


def unexpected(visit: Visit, error: BaseException) -> None:
    """An error that nobody foresaw: its class and where it came from. Its words may quote what a user wrote."""
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    write(
        "error",
        request_id=visit.request_id,
        tenant=visit.tenant,
        conversation=visit.conversation,
        turn=visit.turn,
        error=type(error).__name__,
        trace=[f"{frame.filename.rsplit('/site-packages/')[-1]}:{frame.lineno} {frame.name}" for frame in frames],
    )


class _Lines(logging.Handler):
    """Python's log records as the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        write(
            "log",
            level=record.levelname,
            logger=record.name,
            tenant=getattr(record, "tenant", None) or TENANT.get(),
            message=record.getMessage(),
            error=getattr(record, "error_type", None) if error is None else type(error).__name__,
            **{name: getattr(record, name, None) for name in _MORE},
        )


def configure_logging(level: str = "INFO") -> None:
    """Send what the service's loggers (`brain`, `brain.*`) say, from `level` on, through `write`; and no
    logger of this process shows a secret."""
    install()
    logger = logging.getLogger("brain")
    logger.handlers = [_Lines()]
    logger.propagate = False
    logger.setLevel(level.upper())
