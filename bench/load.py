"""Load on one URL with ``wrk``, or with a generator of our own where that is not installed."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass

import aiohttp

from bench import texts
from bench.commits import PERCENTILES, percentiles
from bench.results import Void

CONNECTIONS = 64
TEXTS = 256
WARM_SECONDS = 1


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What was answered.

    Attributes:
        began_at: seconds since 1970.
        latency: (percentile, milliseconds) of the answers.
    """

    accepted: int
    seconds: float
    began_at: float
    latency: list[tuple[float, float]]

    @property
    def rate(self) -> float:
        """Accepted documents a second."""
        return self.accepted / self.seconds


def run_load(url: str, seconds: int, words: int) -> LoadResult:
    """POST documents for some seconds over 64 connections; every document differs.

    Raises:
        Void: documents were refused.
    """
    program = shutil.which("wrk")
    if program is None:
        return asyncio.run(_own_load(url, seconds, words))
    script = [
        "local texts = {",
        *(f'"{text}",' for text in texts.take(TEXTS, words)),
        "}",
        "local n = 0",
        'local head = {["Content-Type"] = "application/json"}',
        "function request()",
        "  n = n + 1",
        "  local text = texts[n % #texts + 1]",
        """  local body = '{"content": "document ' .. n .. ' ' .. text .. '"}'""",
        "  return wrk.format('POST', '/documents', head, body)",
        "end",
        "function done(summary, latency, requests)",
        *(f"  print('P {one} ' .. latency:percentile({one}))" for one in PERCENTILES[1:-1]),
        "  print('P 0 ' .. latency.min)",
        "  print('P 100 ' .. latency.max)",
        "end",
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".lua", encoding="utf-8") as file:
        file.write("\n".join(script))
        file.flush()
        began_at = time.time()
        done = subprocess.run(
            [program, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "-s", file.name, url],
            capture_output=True,
            text=True,
            check=True,
        )
    return read_wrk(done.stdout, began_at)


def read_wrk(said: str, began_at: float) -> LoadResult:
    """Read what ``wrk`` printed.

    Raises:
        Void: documents were refused, or connections broke.
    """
    answered = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m),", said)
    failed = re.search(r"(Non-2xx or 3xx responses: \d+|Socket errors: .*)", said)
    if answered is None or failed is not None:
        message = f"wrk: {failed[1] if failed else said}"
        raise Void(message)
    seconds = float(answered[2]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[answered[3]]
    latency = re.findall(r"^P ([\d.]+) ([\d.]+)$", said, re.MULTILINE)
    return LoadResult(
        accepted=int(answered[1]),
        seconds=seconds,
        began_at=began_at,
        latency=sorted((float(share), float(micros) / 1000) for share, micros in latency),
    )


async def _own_load(url: str, seconds: int, words: int) -> LoadResult:
    """Do the same in Python: slower, but so for every side."""
    bodies = texts.take(TEXTS, words)
    took: list[float] = []
    sent = 0
    began_at, started_at = time.time(), time.perf_counter()

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal sent
        while (sent_at := time.perf_counter()) < started_at + seconds:
            sent += 1
            text = f"document {sent} {bodies[sent % TEXTS]}"
            async with session.post(f"{url}/documents", json={"content": text}) as response:
                await response.read()
            if not response.ok:
                message = f"answered {response.status}"
                raise Void(message)
            took.append((time.perf_counter() - sent_at) * 1000)

    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(client(session) for _ in range(CONNECTIONS)))
    elapsed = time.perf_counter() - started_at
    return LoadResult(len(took), elapsed, began_at, percentiles(took))
