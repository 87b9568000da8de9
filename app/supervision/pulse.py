"""A child's side: signs of life for the parent, and an end when the parent is gone."""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from app.supervision.children import PARENT_PIPE, PULSE_PIPE, SILENT_SECONDS, STOP_SECONDS

BEAT_SECONDS = 1.0
EXIT_ORPHANED = 71


class Pulse:
    """Shows that the process works; without a parent that listens, to nobody.

    Beside the parent a thread in C watches: Python that does not run cannot say so, nor hear that
    its parent is gone. It writes where the process hangs to stderr, and ends it.
    """

    def __init__(self, *, hung_seconds: float | None = SILENT_SECONDS) -> None:
        """Take what the parent gave.

        Args:
            hung_seconds: between two beats, behind which the process ends; None for no such end.
        """
        given = os.environ.get(PULSE_PIPE)
        self._pipe = None if given is None else int(given)
        self._hung_seconds = hung_seconds
        if self._pipe is not None:
            # A full pipe is as good as a sign: nobody has read the last 64,000.
            os.set_blocking(self._pipe, False)
            os.set_inheritable(self._pipe, False)  # noqa: FBT003  (likewise)

    def beat(self) -> None:
        """Show a sign of life; call it every second."""
        if self._pipe is not None:
            with suppress(OSError):
                os.write(self._pipe, b".")
        if self._hung_seconds is not None:
            faulthandler.dump_traceback_later(self._hung_seconds, exit=True, file=2)

    def end(self) -> None:
        """Expect no beats any more: the process ends in good order, which has its own bound."""
        if self._hung_seconds is not None:
            faulthandler.cancel_dump_traceback_later()

    def beat_on_thread(self, stop: threading.Event) -> None:
        """Beat until an event is set: for a process whose work is on threads."""

        def run() -> None:
            self.beat()
            while not stop.wait(BEAT_SECONDS):
                self.beat()
            self.end()

        threading.Thread(target=run, name="pulse", daemon=True).start()


def end_without_parent(stop: Callable[[], object]) -> None:
    """Call ``stop`` when the parent's end of the pipe closes, however it died (D5).

    A process that has not ended by itself when its time is over ends at once: nobody else would
    kill it.
    """
    pipe = os.environ.get(PARENT_PIPE)
    if pipe is None:
        return

    def watch() -> None:
        while os.read(int(pipe), 1):
            pass
        stop()
        threading.Event().wait(STOP_SECONDS)
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=watch, name="parent", daemon=True).start()
