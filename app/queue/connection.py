"""Redis clients: bounded waits, no retries behind our back, TLS as platforms offer it."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0

NETWORK_ERRORS = (redis.ConnectionError, redis.TimeoutError, OSError)
"""The connection's trouble, as opposed to the server's word. redis-py's TimeoutError is not a
ConnectionError, which is how a stalled server slips through Dramatiq's own handling (S3)."""


def connection_options(
    url: str, *, verify_tls: bool = True, answer_seconds: float = ANSWER_SECONDS
) -> dict[str, Any]:
    """Return the keyword arguments beside the URL, for a client of either kind.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        verify_tls: False accepts a self-signed certificate (Heroku's), for ``rediss://`` only.
        answer_seconds: longest wait for an answer.
    """
    options: dict[str, Any] = {
        "socket_timeout": answer_seconds,
        "socket_connect_timeout": CONNECT_SECONDS,
    }
    if not url.startswith("unix://"):
        options["socket_keepalive"] = True
    if url.startswith("rediss://") and not verify_tls:
        options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    return options


def connect(
    url: str, *, verify_tls: bool = True, answer_seconds: float = ANSWER_SECONDS
) -> redis.Redis:
    """Return a client for threads; nothing is opened before its first command."""
    options = connection_options(url, verify_tls=verify_tls, answer_seconds=answer_seconds)
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)


def connect_async(
    url: str, *, verify_tls: bool = True, answer_seconds: float = ANSWER_SECONDS
) -> redis.asyncio.Redis:
    """Return a client for an event loop; nothing is opened before its first command."""
    options = connection_options(url, verify_tls=verify_tls, answer_seconds=answer_seconds)
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
        url, retry=AsyncRetry(NoBackoff(), 0), **options
    )
    return client
