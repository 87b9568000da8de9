"""The parent's side: children are started, started again when they die or fall silent, and stopped.

Two pipes hold parent and child together. Each child holds the reading end of one whose other end
only the parent has; when the parent dies, however it dies, it closes and the child ends in good
order, so a killed parent leaves no orphans, and one that a platform restarts has no twins (D5 of
the field notes). And each child writes to one of its own, a byte a second for as long as it works:
one that is stopped, or turns in a circle, is still a process and yet no use.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

LOG = structlog.get_logger(__name__)

STOP_SECONDS = 25.0
"""From the signal to SIGKILL; platforms give 30 s (design, P7)."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A child that lived this long has recovered: its next death starts the back-off anew."""
SILENT_SECONDS = 60.0
"""Longer than any work that keeps a child from writing."""
START_SECONDS = 120.0
"""For its first sign of life: many start at once on a machine that has just begun."""
OWN_PAUSE_SECONDS = 5.0
"""Between two looks: we were stopped ourselves, and children get their time anew."""
EXIT_REFUSED = 3
"""Of a child that refuses to start as it was told to; it would again."""
PARENT_PIPE = "DOCYARD_PARENT_PIPE"
PULSE_PIPE = "DOCYARD_PULSE_PIPE"


@dataclass(kw_only=True)
class Child:
    """One process and its restarts.

    Attributes:
        name: what the log calls it.
        command: starts it.
        beats: it has shown a sign of life.
    """

    name: str
    kind: str = ""
    command: Sequence[str] = field(default=())
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    start_at: float = 0.0
    stop_by: float = 0.0
    pulse: int | None = None
    heard_at: float = 0.0
    beats: bool = False


class Nursery:
    """Looks after children; the caller has the list, and calls often."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        pass_fds: Sequence[int] = (),
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        """Open the pipe by which the children hear of our end.

        Args:
            environment: of the children.
            pass_fds: descriptors that they inherit.
            silent_seconds: without a sign of life, behind which a child is killed.
        """
        self._reading_end, self._writing_end = os.pipe()
        self._environment = {**environment, PARENT_PIPE: str(self._reading_end)}
        # Starting is four times slower with it, and children start often enough.
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._pass_fds = (self._reading_end, *pass_fds)
        self._silent_seconds = silent_seconds
        self._looked_at: float | None = None
        self._grace_until = 0.0
        self.refused: int | None = None
        """The exit code of a child that refused to start at all, while none had ever begun."""
        self._any_began = False

    def look_after(self, child: Child, now: float) -> None:
        """Start a child that does not run when it is time, and kill one that is silent.

        Args:
            child: to be kept alive.
            now: seconds of a clock that only goes forward.
        """
        if self._looked_at is not None and now - self._looked_at > OWN_PAUSE_SECONDS:
            self._grace_until = now + self._silent_seconds
        self._looked_at = now
        if child.process is not None:
            self._listen(child, now)
            code = child.process.poll()
            if code is None:
                return
            self._bury(child, code, now)
        if now >= child.start_at:
            self._start(child, now)

    def let_go(self, child: Child, now: float) -> None:
        """Tell a child to end; it has so and so long."""
        if child.process is not None:
            child.process.terminate()
        child.stop_by = now + STOP_SECONDS

    def has_left(self, child: Child, now: float) -> bool:
        """Tell whether a child that was let go has ended; kill it when its time is over."""
        if child.process is None:
            return True
        if child.process.poll() is None and now > child.stop_by:
            LOG.warning("child.killed", pid=child.process.pid, after_seconds=STOP_SECONDS)
            child.process.kill()
        if child.process.poll() is None:
            return False
        self._close_pulse(child)
        return True

    def stop(self, children: Sequence[Child]) -> int:
        """End all children; return the exit code: 1 when one had to be killed."""
        running = [child.process for child in children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        code = 0
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                LOG.warning("child.killed", pid=process.pid, after_seconds=STOP_SECONDS)
                process.kill()
                process.wait()
                code = 1
        for child in children:
            self._close_pulse(child)
        os.close(self._reading_end)
        os.close(self._writing_end)
        return code

    def _start(self, child: Child, now: float) -> None:
        child.pulse, writing_end = os.pipe()
        os.set_blocking(child.pulse, False)
        try:
            child.process = subprocess.Popen(  # noqa: S603  (our own module)
                child.command,
                env={**self._environment, PULSE_PIPE: str(writing_end)},
                pass_fds=(*self._pass_fds, writing_end),
                # A signal to the whole group reaches us; we pass it on once (D1).
                start_new_session=True,
            )
        except OSError as error:  # no memory, no process to be had
            LOG.warning("child.not_started", child=child.name, reason=str(error))
            self._close_pulse(child)
            self._put_off(child, now)
            return
        finally:
            os.close(writing_end)
        child.started_at = child.heard_at = now
        child.beats = False
        LOG.info("child.started", child=child.name, pid=child.process.pid)

    def _listen(self, child: Child, now: float) -> None:
        assert child.process is not None  # noqa: S101  (the caller has looked)
        if child.pulse is not None:
            with suppress(BlockingIOError):
                if os.read(child.pulse, 4096):
                    child.heard_at = now
                    child.beats = self._any_began = True
        silent = now - child.heard_at
        most = self._silent_seconds if child.beats else START_SECONDS
        if silent > most and now > self._grace_until:
            pid, seconds = child.process.pid, round(silent, 1)
            LOG.error("child.silent", child=child.name, pid=pid, seconds=seconds)
            child.process.kill()
            child.process.wait()

    def _bury(self, child: Child, code: int, now: float) -> None:
        self._close_pulse(child)
        if now - child.started_at > STEADY_SECONDS:
            child.pause_seconds = FIRST_PAUSE_SECONDS
        LOG.error(
            "child.died", child=child.name, code=_readable(code), again_in=child.pause_seconds
        )
        if code == EXIT_REFUSED and not self._any_began:
            self.refused = code
        child.process = None
        self._put_off(child, now)

    @staticmethod
    def _put_off(child: Child, now: float) -> None:
        child.start_at = now + child.pause_seconds
        child.pause_seconds = min(child.pause_seconds * 2, LONGEST_PAUSE_SECONDS)

    @staticmethod
    def _close_pulse(child: Child) -> None:
        if child.pulse is not None:
            os.close(child.pulse)
            child.pulse = None


def _readable(code: int) -> int | str:
    """Return an exit code, by name where it is a signal."""
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return code
