"""What clients do about the server behind their connections."""

from __future__ import annotations

import asyncio

import pytest
import redis
from redis.exceptions import ReadOnlyError

from app.queue.connection import connect, connect_async


@pytest.fixture
def name(make_valkey, tmp_path):
    """A name that leads to a primary, until it is demoted for another."""

    class Name:
        old, new = make_valkey(), make_valkey()
        path = tmp_path / "name"
        url = f"unix://{path}"

        def fail_over(self):
            with redis.Redis.from_url(self.old.url) as client:
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
            self.path.unlink()
            self.path.symlink_to(self.new.server.socket)

    made = Name()
    made.path.symlink_to(made.old.server.socket)
    return made


def test_a_demoted_primary_is_left_after_its_first_refusal(name):
    with connect(name.url, most_connections=1) as client:
        client.set("a", 1)
        name.fail_over()
        with pytest.raises(ReadOnlyError):
            client.set("a", 1)
        client.set("a", 2)
    with redis.Redis.from_url(name.new.url) as client:
        assert client.get("a") == b"2"


def test_so_is_it_by_a_client_of_an_event_loop_and_by_a_script(name):
    async def run():
        async with connect_async(name.url, most_connections=1) as client:
            script = client.register_script("return redis.call('set', KEYS[1], 1)")
            await script(keys=["a"])
            name.fail_over()
            with pytest.raises(ReadOnlyError):
                await script(keys=["a"])
            await script(keys=["a"])

    asyncio.run(run())
    with redis.Redis.from_url(name.new.url) as client:
        assert client.get("a") == b"1"
