"""Load on one URL with ``wrk``, or with a generator of our own where that is not installed."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

CONNECTIONS = 64
TEXTS = 256
WORDS = Path(__file__).parent.parent / "models" / "MODEL_CARD.md"


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What was answered."""

    accepted: int
    refused: int
    seconds: float
    began_at: float


def texts(words: int) -> list[str]:
    """Return texts of so many words, the same in every run, from words of ordinary English."""
    source = re.findall(r"[A-Za-z]{2,}", WORDS.read_text(encoding="utf-8"))
    chosen = random.Random(7)  # noqa: S311  (repeatable, not secret)
    return [" ".join(chosen.choices(source, k=words)) for _ in range(TEXTS)]


def run_load(url: str, seconds: int, words: int) -> LoadResult:
    """POST documents for some seconds over 64 connections; every document differs."""
    program = shutil.which("wrk")
    if program is None:
        return asyncio.run(_own_load(url, seconds, words))
    script = [
        "local texts = {",
        *(f'"{text}",' for text in texts(words)),
        "}",
        "local n = 0",
        'local head = {["Content-Type"] = "application/json"}',
        "function request()",
        "  n = n + 1",
        "  local text = texts[n % #texts + 1]",
        """  local body = '{"content": "document ' .. n .. ' ' .. text .. '"}'""",
        "  return wrk.format('POST', '/documents', head, body)",
        "end",
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write("\n".join(script))
        file.flush()
        began_at = time.monotonic()
        done = subprocess.run(
            [program, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "-s", file.name, url],
            capture_output=True,
            text=True,
            check=True,
        )
    answered = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
    if answered is None:
        message = f"wrk said: {done.stdout}"
        raise RuntimeError(message)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    refused = int(failed[1]) if failed else 0
    return LoadResult(int(answered[1]) - refused, refused, float(answered[2]), began_at)


async def _own_load(url: str, seconds: int, words: int) -> LoadResult:
    """Do the same in Python: slower, but so for every side."""
    bodies, counts = texts(words), {"accepted": 0, "refused": 0, "sent": 0}
    began_at = time.monotonic()

    async def client(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < began_at + seconds:
            counts["sent"] += 1
            text = f"document {counts['sent']} {bodies[counts['sent'] % TEXTS]}"
            async with session.post(f"{url}/documents", json={"content": text}) as response:
                await response.read()
                counts["accepted" if response.ok else "refused"] += 1

    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(client(session) for _ in range(CONNECTIONS)))
    elapsed = time.monotonic() - began_at
    return LoadResult(counts["accepted"], counts["refused"], elapsed, began_at)
