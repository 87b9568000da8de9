"""What a holder has read: rows to send, rows under way, and rows not to be sent again yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from app.domain.delivery_rules import BatchInput, QueueKind
from app.storage.deliveries import DeliveryKey
from app.storage.due import DueDelivery, DuePage
from worker.order import VersionOrder, in_order

FLOOR_BYTES = 256 * 1024
"""What each destination may hold in memory however many others there are."""
KEPT_ROWS = 800
"""Of a queue in which what comes next may belong in front; the rest is better read again."""

Unit = tuple[DueDelivery, ...]
"""What one request carries: a row, or several that travel together."""


class Budget:
    """What all holders of a process share, beyond the floor that each has for itself."""

    def __init__(self, free: int) -> None:
        self.free = free

    def charge(self, amount: int) -> None:
        """Take ``amount``, or give it back where it is negative."""
        self.free -= amount


class Workload:
    """Rows by where they stand: queued, in flight, ended but perhaps still returned by a read.

    ``now`` is always the time of the holder's loop.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._queue: QueueKind = "fifo"
        self._batch: BatchInput | None = None
        self._versions: VersionOrder | None = None
        self._fresh: deque[DueDelivery] = deque()
        self._retries: deque[DueDelivery] = deque()
        self._resumed: deque[DueDelivery] = deque()
        self._retry_next = False
        self._gathers_since: float | None = None
        self._known: set[DeliveryKey] = set()
        self._recorded: list[DeliveryKey] = []
        self._bytes = 0

    def configure(self, *, queue: QueueKind, ordered: bool, batch: BatchInput | None) -> None:
        """Keep to what the destination says from now on."""
        self._queue = queue
        self._batch = batch
        if ordered and self._versions is None:
            self._versions = VersionOrder()
        elif not ordered and self._versions is not None:
            self._fresh.extendleft(self._versions.clear())
            self._versions = None

    def __len__(self) -> int:
        return len(self._resumed) + len(self._fresh) + len(self._retries)

    @property
    def queue(self) -> QueueKind:
        """In which order rows never tried are sent."""
        return self._queue

    @property
    def room_bytes(self) -> int:
        """How much more may be read."""
        return FLOOR_BYTES - self._bytes + max(0, self._charged + self._budget.free)

    @property
    def _charged(self) -> int:
        return max(0, self._bytes - FLOOR_BYTES)

    @property
    def resumed(self) -> int:
        """How many have begun and are to go on."""
        return len(self._resumed)

    # Reading

    def begin_read(self, parked: AbstractSet[DeliveryKey] = frozenset()) -> list[int]:
        """Return the order numbers of all rows that a read which begins now may leave out.

        What is committed is forgotten first: this read finds it only if it is due again.

        Args:
            parked: rows that it does not find, for as long as they wait. Others may have their
                order numbers, and must not wait with them.
        """
        self._known.difference_update(self._recorded)
        self._recorded.clear()
        return [key.seq for key in (self._known - parked if parked else self._known)]

    def admit(self, page: DuePage, *, full: bool = False) -> int:
        """Queue the rows of a read that nobody knows yet; return how many.

        Args:
            page: what it brought.
            full: there may be more, of which some belong to the last ones here.
        """
        if full and self._batch is not None:
            page = DuePage(page.fresh, _whole_groups(page.retries))
        if self._versions is not None:
            self._versions.see(page.fresh)
            self._versions.see(page.retries)
        new = self._enter(self._fresh, page.fresh) + self._enter(self._retries, page.retries)
        if self._queue != "fifo" and page.fresh:
            self._sort()
        return new

    def _enter(self, queue: deque[DueDelivery], rows: Iterable[DueDelivery]) -> int:
        new = [row for row in rows if row.key not in self._known]
        self._known.update(row.key for row in new)
        queue.extend(new)
        self._weigh(sum(map(size_of, new)))
        return len(new)

    def _sort(self) -> None:
        rows = in_order(self._fresh, self._queue)
        self._fresh = deque(rows[:KEPT_ROWS])
        self._forget(rows[KEPT_ROWS:])

    # Sending

    def ready(self, now: float) -> int:
        """Return how many requests could be made now, at least one where any could."""
        if self._batch is None:
            return len(self)
        of_fresh = len(self._fresh) // self._batch.max_items
        if self._fresh and not of_fresh:
            of_fresh = self._is_complete(now)
        groups = len({row.due_at for row in self._retries})
        return len(self._resumed) + groups + of_fresh

    def ready_at(self, now: float) -> float | None:
        """Return when rows that wait for others will go without them; None when none wait."""
        if self._batch is None or not self._fresh:
            self._gathers_since = None
            return None
        if self._gathers_since is None:
            self._gathers_since = now
        return self._gathers_since + self._batch.max_wait_seconds

    def take(self, now: float, *, begun: bool = False) -> Unit | None:
        """Return what to send next: fresh rows and retries in turn, while there are both.

        Before them come those whose attempts have begun and are to go on; ``begun`` for only these.
        """
        if self._resumed or begun:
            return (self._resumed.popleft(),) if self._resumed else None
        self._retry_next = not self._retry_next
        takes = (self._take_retries, self._take_fresh)
        for take in takes if self._retry_next else reversed(takes):
            if unit := take(now):
                return unit
        return None

    def _take_fresh(self, now: float) -> Unit:
        batch = self._batch
        if batch is None:
            return self._take_rows(self._fresh, 1)
        if not (self._fresh and self._is_complete(now)):
            return ()
        unit = self._take_rows(self._fresh, batch.max_items, batch.max_bytes)
        self._gathers_since = now if self._fresh else None
        return unit

    def _take_retries(self, now: float) -> Unit:  # noqa: ARG002  (they have waited long enough)
        batch = self._batch
        if batch is None or not self._retries:
            return self._take_rows(self._retries, 1)
        # Those that failed together were given one time, and are tried again together.
        due_at = self._retries[0].due_at
        together = sum(row.due_at == due_at for row in self._retries)
        return self._take_rows(self._retries, min(together, batch.max_items), batch.max_bytes)

    def _take_rows(self, queue: deque[DueDelivery], most: int, max_bytes: int = 0) -> Unit:
        """Take up to so many rows, the first one however long it is."""
        taken: list[DueDelivery] = []
        size = 0
        while queue and len(taken) < most:
            if taken and size + size_of(queue[0]) > max_bytes:
                break
            row = queue.popleft()
            if self._may_go(row):
                taken.append(row)
                size += size_of(row)
        return tuple(taken)

    def _may_go(self, row: DueDelivery) -> bool:
        if self._versions is None:
            return True
        if self._versions.is_outdated(row):
            self._forget([row])
            return False
        return self._versions.begin(row)

    def _is_complete(self, now: float) -> bool:
        batch = self._batch
        if batch is None or len(self._fresh) >= batch.max_items:
            return True
        if (until := self.ready_at(now)) is not None and now >= until:
            return True
        return sum(map(size_of, self._fresh)) >= batch.max_bytes

    # Behind the request

    def resume(self, row: DueDelivery) -> None:
        """Queue a row again whose attempt has begun, ended for the time being and is to go on."""
        self._resumed.append(row)
        self._weigh(size_of(row))

    def ended(self, row: DueDelivery, *, goes_on: bool = False) -> None:
        """An attempt is over; the row stays known until it is recorded, and read without it.

        Args:
            row: that was taken.
            goes_on: it will be resumed.
        """
        self._weigh(-size_of(row))
        if goes_on or self._versions is None:
            return
        self._fresh.extendleft(reversed(self._versions.end(row)))

    def recorded(self, keys: Sequence[DeliveryKey]) -> None:
        """Rows are committed; a read that has begun may still bring them, later ones do not."""
        self._recorded += keys

    def forget(self, keys: Iterable[DeliveryKey]) -> None:
        """Forget rows as if they had never been read; the next read may bring them again."""
        self._known.difference_update(keys)

    def forget_queued(self) -> None:
        """Forget what is queued as if it had never been read; the next read may bring it again."""
        self._forget([*self._fresh, *self._retries])
        self._fresh.clear()
        self._retries.clear()

    def drop(self) -> None:
        """Queue nothing any more."""
        waiting = self._versions.clear() if self._versions else []
        for queue in (self._fresh, self._retries, self._resumed, waiting):
            self._weigh(-sum(map(size_of, queue)))
            queue.clear()

    def _forget(self, rows: Iterable[DueDelivery]) -> None:
        rows = list(rows)
        self._known.difference_update(row.key for row in rows)
        self._weigh(-sum(map(size_of, rows)))

    def _weigh(self, change: int) -> None:
        before = self._charged
        self._bytes += change
        self._budget.charge(self._charged - before)


def _whole_groups(retries: list[DueDelivery]) -> list[DueDelivery]:
    """Leave out the last of those that failed together, unless they are all there is."""
    last = retries[-1].due_at if retries else None
    return [row for row in retries if row.due_at != last] or retries


def size_of(row: DueDelivery) -> int:
    """Return the size of a row's content in bytes."""
    content = row.content
    return len(content) if content.isascii() else len(content.encode())
