"""Redis clients: bounded waits, no retries behind our back, TLS as platforms offer it."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import redis
import redis.asyncio
import structlog
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError
from redis.retry import Retry

LOG = structlog.get_logger(__name__)

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
WEB_ANSWER_SECONDS = 2.0
"""Shorter: an append in doubt is repeated, and its deadline must leave room for that."""
LOST_PEER_SECONDS = 20
"""What was sent into a connection that nobody answers is dropped by then, not delivered later."""
HEALTH_CHECK_SECONDS = 30
MOST_CONNECTIONS = 6
"""Of one process; small Redis plans allow 20 in all."""

OnConnect = Callable[[AbstractConnection], Awaitable[None]]

SERVER_ERRORS = (redis.RedisError, OSError)
"""Everything that talking to Redis may raise. redis-py's TimeoutError is not its ConnectionError,
which is how a stalled server slips through Dramatiq's own handling (S3)."""


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
        "health_check_interval": HEALTH_CHECK_SECONDS,
        # With a retry that tries nothing again, this only ends the connection: the server was
        # demoted, and its name may lead to another by now; the connection never would.
        "retry_on_error": [ReadOnlyError],
        # RESP2 is what every server and managed proxy speaks; nothing here needs more.
        "protocol": 2,
    }
    if not url.startswith("unix://"):
        options["socket_keepalive"] = True
        options["socket_keepalive_options"] = _keepalive()
    if url.startswith("rediss://") and not verify_tls:
        options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    return options


def _keepalive() -> dict[int, int]:
    """Return TCP options by which a silent peer is given up; those that this system knows."""
    wanted = {
        "TCP_KEEPIDLE": 10,
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 2,
        "TCP_USER_TIMEOUT": LOST_PEER_SECONDS * 1000,
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def connect(
    url: str,
    *,
    verify_tls: bool = True,
    answer_seconds: float = ANSWER_SECONDS,
    most_connections: int = MOST_CONNECTIONS,
) -> redis.Redis:
    """Return a client for threads; nothing is opened before its first command."""
    options = connection_options(url, verify_tls=verify_tls, answer_seconds=answer_seconds)
    _tell_unverified(options)
    pool = redis.BlockingConnectionPool.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        max_connections=most_connections,
        timeout=answer_seconds,
        **options,
    )
    return redis.Redis.from_pool(pool)


def connect_async(
    url: str,
    *,
    verify_tls: bool = True,
    answer_seconds: float = WEB_ANSWER_SECONDS,
    most_connections: int = MOST_CONNECTIONS,
    on_connect: OnConnect | None = None,
) -> redis.asyncio.Redis:
    """Return a client for an event loop; nothing is opened before its first command.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        verify_tls: False accepts a self-signed certificate.
        answer_seconds: longest wait for an answer.
        most_connections: in the pool.
        on_connect: greets the server on each new connection, in place of redis-py's own greeting.
    """
    options = connection_options(url, verify_tls=verify_tls, answer_seconds=answer_seconds)
    _tell_unverified(options)
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        retry=AsyncRetry(NoBackoff(), 0),
        max_connections=most_connections,
        timeout=answer_seconds,
        redis_connect_func=on_connect,
        **options,
    )
    return redis.asyncio.Redis.from_pool(pool)


def _tell_unverified(options: dict[str, Any]) -> None:
    if options.get("ssl_cert_reqs") == "none":
        LOG.warning("redis.certificate_unverified", reason="REDIS_TLS_VERIFY is off")
