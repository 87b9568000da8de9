"""What takes collectors up hears every ring."""

from __future__ import annotations

import threading

from tests.delivery.conftest import wait_until
from worker.collectors.attendant import Attendant


class RungBehindTheAnswer(threading.Event):
    """Somebody rings just when it was asked for the first time, and had not been rung."""

    asked = False

    def is_set(self):
        answer = super().is_set()
        if not self.asked:
            self.asked = True
            self.set()
        return answer


class Noting(Attendant):
    def __init__(self, rung):
        super().__init__(None, None, {}, rung)
        self.looks = []

    def look(self, *, rung):
        self.looks.append(rung)


def test_a_ring_at_the_very_moment_of_a_look_is_heard_by_the_next_one():
    attendant = Noting(RungBehindTheAnswer())
    attendant.start()
    try:
        wait_until(lambda: len(attendant.looks) >= 2)
    finally:
        attendant._stopping.set()
        attendant._rung.set()
        attendant._thread.join()
    assert attendant.looks[:2] == [False, True]
