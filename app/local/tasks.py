"""What the launcher waits for: signals, children that ended, work in threads; without polling."""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

T = TypeVar("T")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Events:
    """Turns Ctrl-C, SIGTERM, SIGHUP, SIGCHLD and ``wake()`` into one thing to wait for.

    Attributes:
        stops_asked: how often somebody asked to stop. Who presses Ctrl-C the second time is in a
            hurry; a terminal that is closed, or a platform, may just say it twice.
    """

    def __init__(self, on_stop: Callable[[int], None] = lambda _count: None) -> None:
        self.stops_asked = 0
        self._on_stop = on_stop
        self._read, self._write = os.pipe()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for descriptor in (self._read, self._write):
            os.set_blocking(descriptor, False)
        for number in STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started with nohup: the end of the terminal is not meant for us
            self._before[number] = signal.signal(number, self._stop)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._child_ended)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # The descriptors stay open: a task that was given up may still call wake().

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.stops_asked += 1
        self.wake()
        if number == signal.SIGINT:
            self._on_stop(self.stops_asked)

    def _child_ended(self, _number: int, _frame: FrameType | None) -> None:
        self.wake()

    def wake(self) -> None:
        """End the current ``wait``, or the next one; from any thread or signal handler."""
        try:
            os.write(self._write, b".")
        except BlockingIOError:
            return  # the pipe is full: it will wake anyway

    def wait(self, seconds: float) -> None:
        """Wait until something happened, at most ``seconds``."""
        if select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 4096)


class Task(Generic[T]):
    """A function that runs in a daemon thread and wakes the launcher when it is done."""

    def __init__(self, function: Callable[[], T], events: Events) -> None:
        self._function = function
        self._events = events
        self._result: T
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._error = error
        finally:
            self._events.wake()

    @property
    def done(self) -> bool:
        """Whether there is a result or an error."""
        return not self._thread.is_alive() or hasattr(self, "_result") or self._error is not None

    def result(self) -> T:
        """Return the result or raise the error; waits if it has to."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result
