"""A wall clock that jumps: what Python code and new identifiers see of it."""

import datetime as dt
import time
from pathlib import Path

import uuid_utils

LOOK_EVERY_SECONDS = 0.05


def install(file):
    """Shift the clock by the seconds that a file holds at the moment."""
    path = Path(file)
    real_time, real_time_ns, real_uuid7 = time.time, time.time_ns, uuid_utils.uuid7
    real_datetime = dt.datetime
    offset, looked_at = 0.0, 0.0

    def shift():
        nonlocal offset, looked_at
        now = time.monotonic()
        if now - looked_at > LOOK_EVERY_SECONDS:
            looked_at = now
            # Empty for a moment while it is written anew.
            offset = float(path.read_text() or offset)
        return offset

    def shifted_time():
        return real_time() + shift()

    def shifted_time_ns():
        return real_time_ns() + int(shift() * 1_000_000_000)

    def shifted_uuid7(*, nanoseconds=None):
        return real_uuid7(nanoseconds=shifted_time_ns() if nanoseconds is None else nanoseconds)

    class RealDatetimes(type):
        def __instancecheck__(cls, value):
            return isinstance(value, real_datetime)

    class ShiftedDatetime(real_datetime, metaclass=RealDatetimes):
        """Makes real ones: libraries written in C know no other."""

        def __new__(cls, *arguments, **named):
            return real_datetime(*arguments, **named)

        @classmethod
        def now(cls, tz=None):
            return real_datetime.fromtimestamp(time.time(), tz)

    dt.datetime = ShiftedDatetime
    time.time, time.time_ns, uuid_utils.uuid7 = shifted_time, shifted_time_ns, shifted_uuid7
