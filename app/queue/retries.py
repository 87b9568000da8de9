"""Retries that cannot lose a message, and a way to give one back."""

from __future__ import annotations

from typing import Any

import structlog
from dramatiq import Broker, MessageProxy, Worker
from dramatiq.errors import BrokerConnectionError, Retry
from dramatiq.middleware import Middleware, Retries
from redis.exceptions import RedisError

from app.queue.consumer import HAND_BACK

LOG = structlog.get_logger(__name__)

DELAYED_IN_MEMORY = 64


class HandBack(Retry):
    """Raised by an actor: put the message back to its queue as it is, without counting a try.

    Not an error: the process must stop before the work could be done.
    """


class HardenedRetries(Retries):
    """Dramatiq's retries, except that one which cannot be enqueued is not taken for done.

    Stock, the broker swallows the middleware's error and acknowledges the message: gone (L1).
    """

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Enqueue the retry of a failed message, or mark it to be handed back or given up."""
        if isinstance(exception, HandBack):
            message.options[HAND_BACK] = True
            return
        try:
            super().after_process_message(  # type: ignore[no-untyped-call]  # not annotated
                broker, message, result=result, exception=exception
            )
        except (BrokerConnectionError, RedisError):
            # Handing back waits for Redis as long as it takes.
            message.options[HAND_BACK] = True
        except Exception:
            # Whatever it is, an unprocessed message is no done one: it goes to the dead letters.
            LOG.exception("retry.impossible", message_id=message.message_id)
            message.fail()


class DelayedInMemory(Middleware):
    """Bounds how many delayed messages a consumer takes into memory.

    Dramatiq's thousand per thread would be gigabytes if they were full chunks.
    """

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002  (signature)
        """Set the bound before the consumers are made."""
        worker.delay_prefetch = DELAYED_IN_MEMORY
