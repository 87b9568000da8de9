"""Retries that cannot lose a message, and a way to give one back."""

from __future__ import annotations

from typing import Any

from dramatiq import Broker, MessageProxy
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import Retries
from redis.exceptions import RedisError

from app.queue.consumer import HAND_BACK


class HandBack(Exception):  # noqa: N818  (not an error: the process must stop before the work)
    """Raised by an actor: put the message back to its queue as it is."""


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
        """Enqueue the retry of a failed message, or mark it to be handed back."""
        if isinstance(exception, HandBack):
            message.options[HAND_BACK] = True
            return
        try:
            super().after_process_message(broker, message, result=result, exception=exception)
        except (BrokerConnectionError, RedisError):
            message.options[HAND_BACK] = True
