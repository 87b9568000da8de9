from __future__ import annotations

import threading

import dramatiq.worker
import pytest


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 0.2)
    monkeypatch.setattr(dramatiq.worker, "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.2)


@pytest.fixture(autouse=True)
def _thread_deaths_are_expected(monkeypatch):
    """Of the stock broker; pytest would take them for failures of the test."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
