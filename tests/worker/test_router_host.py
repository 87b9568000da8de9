"""The user's router: loaded, asked, and looked at while it does not answer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime

import pytest

from app.domain.errors import SettingsInvalid
from app.domain.routers import RoutedDocument
from app.domain.routing import RoutingTable
from app.extensions import load_router
from app.settings import Settings
from tests.acceptance.conftest import PROJECT, until
from worker.router_host import Question, RouterHost

QUESTION = Question(
    RoutedDocument(
        id=uuid.uuid4(),
        version=0,
        content="x",
        topics=None,
        keys=None,
        delivery=None,
        priority=None,
        attributes=None,
        created_at=datetime.now(UTC),
        updated_at=datetime.now(UTC),
    ),
    None,
)


class Hangs:
    async def route(self, *_):
        await asyncio.Event().wait()


class Exits:
    def route(self, *_):
        raise SystemExit


class Cancels:
    async def route(self, *_):
        raise asyncio.CancelledError


class Mute:
    def route(self, *_):
        raise Unspeakable


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError


class Lazy:
    def route(self, *_):
        yield "a"
        message = "half way"
        raise RuntimeError(message)


class Misspells:
    def route(self, *_):
        return ["https://example.com/\ud800"]


@pytest.mark.parametrize(
    ("router", "said"),
    [
        (Exits(), "SystemExit"),
        (Cancels(), "CancelledError"),
        (Mute(), "Unspeakable"),
        (Lazy(), "RuntimeError: half way"),
        (Misspells(), "contains a lone surrogate"),
    ],
)
def test_whatever_a_router_does_is_an_answer(router, said):
    assert said in str(answer_of(RouterHost(router)))


def test_a_router_that_does_not_answer_in_time_is_not_waited_for():
    host = RouterHost(Hangs(), answer_seconds=0.05)
    assert "it did not answer within 0.05 s" in str(answer_of(host))


def answer_of(host):
    (answer, _) = host.ask([QUESTION, QUESTION], RoutingTable([]))
    host.close()
    return answer


BLOCKED = threading.Event()


class Blocks:
    def route(self, *_):
        BLOCKED.wait(20)
        return ["a"]


class BlocksItsLoop(Blocks):
    async def route(self, *_):
        return super().route()


@pytest.mark.parametrize("router", [Blocks(), BlocksItsLoop()])
def test_a_call_that_does_not_come_back_is_seen_from_outside(router):
    BLOCKED.clear()
    host = RouterHost(router, answer_seconds=0.05)
    asking = threading.Thread(target=host.ask, args=([QUESTION], RoutingTable([])))
    assert host.calls.silent_seconds() == 0
    asking.start()
    assert until(lambda: host.calls.silent_seconds() > 0.2, 10)
    BLOCKED.set()
    asking.join()
    assert host.calls.silent_seconds() == 0
    host.close()


def test_a_process_watches_what_is_not_its_own():
    code = """
from app.settings import Settings
from worker.main import make_broker
settings = Settings(router="tests.worker.test_router_host:Blocks")
broker = make_broker(settings, ["ingest"])
print(*sorted((name, part.most_seconds) for name, part in broker.parts.items()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "('classifier', 60.0) ('router', None)\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:Router", "cannot be imported"),
        ("tests.worker.test_routers_in_workers:Sync", None),
        ("tests.worker.test_routers_in_workers:ToUrls", None),
        (
            "tests.worker.test_routers_in_workers:Planning",
            "is not a subclass of app.domain.routers.Router",
        ),
        ("tests.worker.test_router_host:Needs", "cannot be made without arguments"),
    ],
)
def test_the_setting_names_a_class_with_a_method_route(name, said):
    if said is None:
        assert load_router(Settings(router=name)).route
        return
    with pytest.raises(SettingsInvalid, match=said):
        load_router(Settings(router=name))


class Needs(Blocks):
    def __init__(self, something):
        self.something = something


def test_without_the_setting_there_is_no_router():
    assert load_router(Settings(router=" ")) is None
