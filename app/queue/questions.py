"""Questions of the web to an ingest worker, through Redis, for an answer within seconds.

The web has no model. It leaves a question under a key that expires, puts its id on a list and
announces it; whichever worker pops the id takes the question and leaves the answer under another
key that expires. Nothing of this is durable, and nothing is left behind: what nobody takes is gone
with its keys. The web looks for the answer instead of waiting in a blocking command, because it has
few connections and its intake needs them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

import orjson
import redis
import redis.asyncio

from app.domain.errors import InvalidInput, Unavailable, Violation, WorkerSilent
from app.domain.identifiers import new_id
from app.queue.connection import SERVER_ERRORS
from app.queue.names import QUESTIONS, Keys

ANSWER_SECONDS = 5.0
MOST_AT_ONCE = 8
"""Questions of one web process: each holds its text in Redis meanwhile."""
MAX_BYTES = 512 * 1024
"""Of a question, for the same reason."""
MOST_WAITING = 100
"""Questions on the list; older ones have expired, or soon will."""
FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.1


class Question(NamedTuple):
    """What a worker has popped; ``content`` is whatever the web asked."""

    id: str
    content: dict[str, Any]


class Asker:
    """Asks for one web process."""

    def __init__(self, client: redis.asyncio.Redis, namespace: str) -> None:
        self._client = client
        self._keys = Keys(namespace)
        self._asking = 0

    async def ask(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return a worker's answer.

        Args:
            content: anything that JSON can say.

        Raises:
            InvalidInput: it is too large to be asked.
            WorkerSilent: no worker answered in time.
            Unavailable: Redis did not take the question, or too many are being asked.
        """
        seconds, encoded = ANSWER_SECONDS, orjson.dumps(content)
        if len(encoded) > MAX_BYTES:
            sentence = f"This is too large to ask a worker about; {MAX_BYTES} bytes are not."
            raise InvalidInput([Violation("", sentence)])
        if self._asking >= MOST_AT_ONCE:
            message = "This process is asking as many questions as it may; try again."
            raise Unavailable(message)
        self._asking += 1
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(encoded, seconds)
        except TimeoutError:
            raise WorkerSilent(seconds) from None
        except SERVER_ERRORS as error:
            message = f"Redis cannot be reached ({type(error).__name__})."
            raise Unavailable(message) from error
        finally:
            self._asking -= 1

    async def _ask(self, encoded: bytes, seconds: float) -> dict[str, Any]:
        keys, question_id, lifetime_ms = self._keys, str(new_id()), round(seconds * 1000)
        # Looked at beside the time-out around us: before Python 3.12 redis-py may swallow the
        # cancellation by which that ends a command (`asyncio.wait_for` returns what is done).
        end = time.monotonic() + seconds
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.set(keys.question(question_id), encoded, px=lifetime_ms)
            pipeline.rpush(keys.questions, question_id)
            pipeline.ltrim(keys.questions, -MOST_WAITING, -1)
            pipeline.pexpire(keys.questions, lifetime_ms)
            pipeline.publish(keys.wake(QUESTIONS), "")
            await pipeline.execute()
        pause = FIRST_PAUSE_SECONDS
        while time.monotonic() < end:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
            found = await self._client.getdel(keys.answer(question_id))
            if found is not None:
                answer: dict[str, Any] = orjson.loads(found)
                return answer
        raise TimeoutError


def take(client: redis.Redis, namespace: str) -> Question | None:
    """Pop a question that somebody still waits for; None when there is none.

    Raises:
        redis.RedisError: Redis did not say.
    """
    keys = Keys(namespace)
    while (popped := client.lpop(keys.questions)) is not None:
        assert isinstance(popped, bytes)  # noqa: S101  (one, undecoded)
        question_id = popped.decode()
        content = client.getdel(keys.question(question_id))
        if content is not None:
            return Question(question_id, orjson.loads(content))
    return None


def answer(client: redis.Redis, namespace: str, question: Question, found: Any) -> None:
    """Leave the answer to a question.

    Raises:
        redis.RedisError: it may not have been left.
    """
    client.set(
        Keys(namespace).answer(question.id),
        orjson.dumps(found),
        px=round(ANSWER_SECONDS * 1000),
    )
