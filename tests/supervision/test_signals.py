"""Signals that ask a process to stop."""

from __future__ import annotations

import os
import signal

import pytest

from app.supervision.signals import StopSignals


@pytest.fixture
def signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    made = StopSignals()
    made.listen()
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nothing_is_heard_until_a_signal_comes(signals):
    assert signals.wait(0) is None
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.wait(5) is signal.SIGTERM


def test_the_first_of_several_counts_and_any_number_of_them_ends_nothing(signals):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(100_000):
        signals._heard(signal.SIGTERM, None)
    assert signals.wait(0) is signal.SIGINT
