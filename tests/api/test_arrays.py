"""Arrays are read in turns, so that other requests are answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from app.api.arrays import read_array
from app.api.bodies import SLICE_BYTES
from app.domain.json_arrays import TOKENS_IN_A_TURN
from app.settings import Settings

MOST = 64 * SLICE_BYTES
NUMBERS = json.dumps([0] * (SLICE_BYTES // 8))


async def _turns_of_others(body: bytes) -> int:
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    meanwhile = asyncio.create_task(others())
    assert await read_array(body, len, Settings(max_body_bytes=MOST))
    meanwhile.cancel()
    return turns


@pytest.mark.parametrize(
    ("body", "turns"),
    [
        ("[" + ",".join([NUMBERS] * 80) + "]", 80 * len(NUMBERS) // SLICE_BYTES // 2),
        (json.dumps(["x" * (SLICE_BYTES // 4)] * 80), 80 // 4 - 1),
        (json.dumps([[0] * 10 * TOKENS_IN_A_TURN]), 10),
    ],
    ids=["many elements", "many texts", "one element of many tokens"],
)
def test_an_array_leaves_turns_to_others(body, turns):
    assert asyncio.run(_turns_of_others(body.encode())) >= turns


def test_a_large_element_is_read_beside_the_loop():
    async def run():
        loop, turned = asyncio.get_running_loop(), threading.Event()

        def read(_: bytes) -> bool:
            loop.call_soon_threadsafe(turned.set)
            return turned.wait(10)

        body = b'["' + b"x" * SLICE_BYTES + b'"]'
        return await read_array(body, read, Settings(max_body_bytes=MOST))

    assert asyncio.run(run()) == [True]
