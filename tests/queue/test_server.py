"""What Redis promises is asked anew on every connection, and less than required is refused."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
import redis
from structlog.testing import capture_logs

from app.domain.documents import Lane
from app.domain.errors import DurabilityInsufficient, QueueUnavailable, QueueUnreadable
from app.queue.accepted import read_counts
from app.queue.connection import connect_async
from app.queue.intake import Intake, IntakeLimits
from app.queue.server import ServerWatch

DOCUMENT = json.dumps({"id": str(uuid.uuid4()), "content": "x"}).encode()


def run(url, work, required=None):
    async def main():
        watch = ServerWatch(required)
        client = connect_async(url, on_connect=watch.connected)
        try:
            return await work(client, watch)
        finally:
            await client.aclose()

    return asyncio.run(main())


def look(url):
    return run(url, lambda client, watch: watch.look(client))


@pytest.mark.parametrize(
    ("config", "durability"),
    [({}, "always"), ({"appendfsync": "everysec"}, "everysec"), ({"appendonly": "no"}, "none")],
)
def test_durability_is_read_off_the_server(make_valkey, config, durability):
    assert look(make_valkey(**config).url).durability == durability


@pytest.mark.parametrize(("appendonly", "durability"), [("yes", "unknown"), ("no", "none")])
def test_without_config_only_the_lack_of_a_file_is_certain(make_valkey, appendonly, durability):
    server = make_valkey(appendonly=appendonly, maxmemory="30mb")
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "default", "-config")
    facts = look(server.url)
    assert (facts.durability, facts.maxmemory) == (durability, 30 << 20)


def test_a_server_that_tells_nothing_is_unknown_and_takes_documents(make_valkey):
    server = make_valkey(maxmemory="30mb")
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "default", "-config", "-info")

    async def work(client, watch):
        await Intake(client, namespace="docyard", server=watch).submit(DOCUMENT, Lane.NORMAL)
        return watch.facts

    facts = run(server.url, work)
    assert (facts.durability, facts.maxmemory, facts.warning) == ("unknown", None, None)


@pytest.mark.parametrize(
    ("maxmemory", "policy", "warned"),
    [("30mb", "noeviction", False), ("30mb", "allkeys-lru", True), ("0", "allkeys-lru", False)],
)
def test_a_server_that_may_evict_is_warned_of_once(make_valkey, maxmemory, policy, warned):
    url = make_valkey(maxmemory=maxmemory, maxmemory_policy=policy).url

    async def work(client, watch):
        await watch.look(client)
        return await watch.look(client)

    with capture_logs() as logs:
        facts = run(url, work)
    assert bool(facts.warning) is warned
    assert [one["event"] for one in logs] == ["redis.may_evict"] * warned


def test_a_server_that_came_back_with_less_is_refused_until_it_promises_enough(make_valkey):
    server = make_valkey()

    async def work(client, watch):
        limits = IntakeLimits(deadline_seconds=1)
        intake = Intake(client, namespace="docyard", limits=limits, server=watch)
        await intake.submit(DOCUMENT, Lane.NORMAL)
        server.stop()
        with pytest.raises(QueueUnavailable):
            await intake.submit(DOCUMENT, Lane.NORMAL)
        server.start(appendonly="no")
        with pytest.raises(DurabilityInsufficient, match="'none' now, and 'always' is required"):
            await intake.submit(DOCUMENT, Lane.NORMAL)
        with redis.Redis.from_url(server.url) as other:
            assert not other.keys("docyard:*"), "refused before it is sent"
        server.stop()
        server.start(appendonly="yes")
        await intake.submit(DOCUMENT, Lane.NORMAL)

    run(server.url, work, "always")


def test_settings_changed_on_a_running_server_count_from_the_next_look_on(make_valkey):
    server = make_valkey()

    async def work(client, watch):
        intake = Intake(client, namespace="docyard", server=watch)
        await intake.submit(DOCUMENT, Lane.NORMAL)
        await client.config_set("appendfsync", "everysec")
        await watch.look(client)
        with pytest.raises(DurabilityInsufficient):
            await intake.submit(DOCUMENT, Lane.NORMAL)
        await client.config_set("appendfsync", "always")
        # While it refuses it looks by itself.
        await intake.submit(DOCUMENT, Lane.NORMAL)

    run(server.url, work, "always")


def test_counts_that_cannot_be_read_ask_nobody_to_send_again():
    with pytest.raises(QueueUnreadable, match=r"does not say what it holds \(ConnectionError"):
        run("redis://127.0.0.1:1/0", lambda client, _watch: read_counts(client, "docyard"))
