"""Being told to stop, without a lock: a signal may interrupt the very code that has it."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType


class StopSignals:
    """SIGTERM and SIGINT of this process, from the moment at which it listens.

    The handler does no more than to write into a pipe. An event has a lock that ``wait`` takes, and
    a logger a buffer that it writes: a handler that needs them waits for the code which it has
    interrupted, and that is for ever.
    """

    def __init__(self) -> None:
        """Make the pipe."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def listen(self) -> None:
        """Take the signals over; on the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heard)

    def tell_on_thread(self, told: Callable[[signal.Signals], object]) -> None:
        """Call ``told`` with the first signal, on a thread, where it may take locks.

        The later ones are not heard.
        """

        def run() -> None:
            signal_heard = self.wait(None)
            assert signal_heard is not None  # noqa: S101  (there was no limit)
            told(signal_heard)

        threading.Thread(target=run, name="signals", daemon=True).start()

    def wait(self, seconds: float | None) -> signal.Signals | None:
        """Wait for a signal, at most so long or without limit; return the first that came."""
        if not select.select([self._read], [], [], seconds)[0]:
            return None
        return signal.Signals(os.read(self._read, 1)[0])

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        try:
            os.write(self._write, bytes([number]))
        except BlockingIOError:
            return  # the pipe is full of signals
