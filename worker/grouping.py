"""Small chunks that wait at the same time share a transaction.

Single documents arrive in chunks of one to a few dozen. A transaction for thirty documents costs
about as many round trips and one fsync as one for five hundred, so the working threads join: the
first becomes the leader, takes along what waits, and the others sleep until it is done. No timer:
an idle worker takes a chunk up at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from app.queue.messages import Chunk
from app.queue.retries import HandBack

LOG = structlog.get_logger(__name__)

MAX_DOCUMENTS = 500
MAX_CHARACTERS = 1 << 20
"""In a group, as in a chunk: a transaction holds its documents several times over. A chunk of one
document may have more, and is then a group by itself."""

Work = Callable[[Sequence[Chunk]], None]


@dataclass(slots=True)
class _Waiting:
    chunk: Chunk
    woken: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    applied: bool = False
    error: BaseException | None = None


class Grouping:
    """Joins the chunks of concurrent calls into groups."""

    def __init__(self, work: Work, *, at_once: int) -> None:
        """Start with nothing.

        Args:
            work: applies a group, all of it or nothing.
            at_once: groups that are worked on side by side.
        """
        self._work = work
        self._places = at_once
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()

    def ingest(self, chunk: Chunk) -> None:
        """Return when the chunk has been applied; raises what its work raised."""
        mine = _Waiting(chunk)
        with self._lock:
            if self._places:
                self._places -= 1
                mine.leads = True
            else:
                self._waiting.append(mine)
        if not mine.leads:
            mine.woken.wait()
        if mine.leads:
            self._lead(mine)
        if not mine.applied:
            raise mine.error or RuntimeError("the group ended early")

    def _lead(self, leader: _Waiting) -> None:
        """Work on one group, the leader's, and pass the place on."""
        with self._lock:
            group = self._gather(leader)
        try:
            self._run(group)
        finally:
            with self._lock:
                if self._waiting:
                    successor = self._waiting.popleft()
                    successor.leads = True
                    successor.woken.set()
                else:
                    self._places += 1

    def _gather(self, leader: _Waiting) -> list[_Waiting]:
        group = [leader]
        tenant_id, count = leader.chunk.tenant_id, len(leader.chunk.documents)
        characters = _characters(leader.chunk)
        while self._waiting:
            chunk = self._waiting[0].chunk
            count += len(chunk.documents)
            characters += _characters(chunk)
            full = count > MAX_DOCUMENTS or characters > MAX_CHARACTERS
            if chunk.tenant_id != tenant_id or full:
                break
            group.append(self._waiting.popleft())
        return group

    def _run(self, group: Sequence[_Waiting]) -> None:
        try:
            self._work([one.chunk for one in group])
            for one in group:
                one.applied = True
        except HandBack as error:
            _fail(group, error)
        except Exception as error:  # noqa: BLE001  (each chunk hears of its own fault)
            if len(group) == 1:
                _fail(group, error)
            else:
                LOG.warning("group.failed", chunks=len(group), reason=str(error)[:500])
                for one in group:
                    self._run([one])
        finally:
            for one in group:
                one.woken.set()


def _characters(chunk: Chunk) -> int:
    """Return how much text a chunk has; what is no text will be rejected, and is small."""
    texts = (document.get("content") for document in chunk.documents)
    return sum(len(text) for text in texts if isinstance(text, str))


def _fail(group: Sequence[_Waiting], error: BaseException) -> None:
    for one in group:
        one.error = error
