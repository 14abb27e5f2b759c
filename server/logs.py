"""Logs: one JSON object a line for machines, colours for people at a terminal."""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from server.request_id import REQUEST_ID

SECRET = re.compile("authorization|cookie|password|secret|token|api_?key", re.IGNORECASE)


class _Named(structlog.WriteLogger):
    def __init__(self, stream: TextIO, name: str) -> None:
        super().__init__(stream)
        self.name = name


def configure(level: str, stream: TextIO) -> None:
    """Send everything that is logged to `stream`, libraries' messages included.

    Args:
        level: least level that is shown, e.g. `info`.
        stream: a terminal gets colours, anything else one JSON object a line.
    """
    shared: list[Processor] = [
        add_request_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        mask_secrets,
    ]
    # Plain tracebacks: the pretty ones print local variables, requests among them.
    rendering: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if stream.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    # Our own messages take the short way: the standard library's would cost as much again.
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=partial(_Named, stream),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.getLogger("sse_starlette").setLevel(logging.INFO)  # at debug it writes down whole images


def add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Say which request the line belongs to, if it belongs to one."""
    if request_id := REQUEST_ID.get():
        event["request_id"] = request_id
    return event


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blot out values whose name says that they are secret, at any depth."""
    return {key: _masked(key, value) for key, value in event.items()}


def _masked(key: object, value: object) -> object:
    if SECRET.search(str(key)):
        return "***"
    if isinstance(value, dict):
        return {inner: _masked(inner, content) for inner, content in value.items()}
    return value
