"""One log event a line: JSON for machines, columns for a terminal."""

from __future__ import annotations

import logging
import sys

import structlog

from app.settings import Settings

QUIET = ("uvicorn.access", "dramatiq", "alembic")
"""Libraries that log every request or message; from them only warnings."""


def configure_logging(settings: Settings) -> None:
    """Send this process's events, and those of libraries, to standard error."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    console = settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
    renderer: structlog.typing.Processor = (
        # Plain: the pretty form prints local variables, and these are documents and keys.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_without_content)
    processors: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta
    ]
    if not console:
        processors.append(structlog.processors.format_exc_info)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[*processors, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _without_content(record: logging.LogRecord) -> bool:
    """Name messages by their ids: Dramatiq prints their arguments, and these are documents."""
    if record.name.startswith("dramatiq") and isinstance(record.args, tuple):
        record.args = tuple(
            f"{one.actor_name} {one.message_id}"
            if hasattr(one, "actor_name") and hasattr(one, "message_id")
            else one
            for one in record.args
        )
    return True
