"""What a holder has read: rows to send, rows under way, and rows not to be sent again yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from app.storage.deliveries import DeliveryKey, DueDelivery, DuePage

FLOOR_BYTES = 256 * 1024
"""What each destination may hold in memory however many others there are."""


class Budget:
    """What all holders of a process share, beyond the floor that each has for itself."""

    def __init__(self, free: int) -> None:
        self.free = free

    def charge(self, amount: int) -> None:
        """Take ``amount``, or give it back where it is negative."""
        self.free -= amount


class Workload:
    """Rows by where they stand: queued, in flight, ended but perhaps still returned by a read."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._fresh: deque[DueDelivery] = deque()
        self._retries: deque[DueDelivery] = deque()
        self._resumed: deque[DueDelivery] = deque()
        self._retry_next = False
        self._known: set[DeliveryKey] = set()
        self._recorded: deque[tuple[int, Sequence[DeliveryKey]]] = deque()
        self._reads = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._resumed) + len(self._fresh) + len(self._retries)

    @property
    def room_bytes(self) -> int:
        """How much more may be read."""
        return FLOOR_BYTES - self._bytes + max(0, self._charged + self._budget.free)

    @property
    def _charged(self) -> int:
        return max(0, self._bytes - FLOOR_BYTES)

    def begin_read(self) -> int:
        """Return the number of a read that begins now."""
        self._reads += 1
        return self._reads

    def admit(self, read: int, page: DuePage) -> int:
        """Queue the rows of a read that nobody knows yet; return how many.

        Args:
            read: its number.
            page: what it brought.
        """
        # First forget: a row that was recorded before this read began is in it only because it
        # is due again.
        while self._recorded and self._recorded[0][0] < read:
            self._known.difference_update(self._recorded.popleft()[1])
        return self._queue(self._fresh, page.fresh) + self._queue(self._retries, page.retries)

    def _queue(self, queue: deque[DueDelivery], rows: Iterable[DueDelivery]) -> int:
        new = [row for row in rows if row.key not in self._known]
        self._known.update(row.key for row in new)
        queue.extend(new)
        self._weigh(sum(map(size_of, new)))
        return len(new)

    def take(self) -> DueDelivery | None:
        """Return the next row to send: fresh ones and retries in turn, while there are both.

        Before them come those whose attempts have begun and are to go on.
        """
        if self._resumed:
            return self._resumed.popleft()
        self._retry_next = not self._retry_next
        first, second = (
            (self._retries, self._fresh) if self._retry_next else (self._fresh, self._retries)
        )
        if first:
            return first.popleft()
        return second.popleft() if second else None

    def resume(self, row: DueDelivery) -> None:
        """Queue a row again whose attempt has begun, ended for the time being and is to go on."""
        self._resumed.append(row)
        self._weigh(size_of(row))

    def ended(self, row: DueDelivery) -> None:
        """An attempt is over; the row stays known until it is recorded, and read without it."""
        self._weigh(-size_of(row))

    def recorded(self, keys: Sequence[DeliveryKey]) -> None:
        """Rows are committed; forget them as soon as a read that begins now has come back."""
        self._recorded.append((self._reads, keys))

    def forget_queued(self) -> None:
        """Forget what is queued as if it had never been read; the next read may bring it again."""
        self._known.difference_update(row.key for row in (*self._fresh, *self._retries))
        self._clear(self._fresh, self._retries)

    def drop(self) -> None:
        """Queue nothing any more."""
        self._clear(self._fresh, self._retries, self._resumed)

    def _clear(self, *queues: deque[DueDelivery]) -> None:
        for queue in queues:
            self._weigh(-sum(map(size_of, queue)))
            queue.clear()

    def _weigh(self, change: int) -> None:
        before = self._charged
        self._bytes += change
        self._budget.charge(self._charged - before)


def size_of(row: DueDelivery) -> int:
    """Return the size of a row's content in bytes."""
    content = row.content
    return len(content) if content.isascii() else len(content.encode())
