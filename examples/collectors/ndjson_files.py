"""Append every document to NDJSON files: rotated by size, on disk before it counts, without twins.

::

    COLLECTORS=examples.collectors.ndjson_files ARCHIVE_FOLDER=/var/archive python -m app worker

A delivery may come twice: the process may die between the write and the record of it. So every line
has the document's id and order number, and a line that is there already is not written again. A
line that a crash has cut off is removed. All that happens under a lock on the folder, so that
several processes may write to it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import orjson

from app.collectors import Context, Ok, Payload, collector

MAX_BYTES = 64 * 1024 * 1024
"""Of a file; the next line goes into a new one."""
REPEATS_SECONDS = 6 * 86_400
"""Nothing is delivered again later than this; lines of older files are not looked for."""


class Archive:
    """A folder of files. ``append`` blocks: call it in a thread."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes = max_bytes
        self._known: dict[Path, set[tuple[str, int]]] = {}
        self._read: dict[Path, int] = {}

    def append(self, lines: list[bytes]) -> int:
        """Write the lines that are not there yet; return how many, when they are on disk."""
        with self._locked():
            recent = self._recent()
            self._known = {file: self._known.get(file, set()) for file in recent}
            for file in recent:
                self._look_at(file)
            new = {_key(line): line for line in lines}
            for known in self._known.values():
                for key in new.keys() & known:
                    del new[key]
            if new:
                file = self._current()
                with file.open("ab") as target:
                    target.write(b"".join(new.values()))
                    target.flush()
                    os.fsync(target.fileno())
                    self._read[file] = target.tell()
                self._known.setdefault(file, set()).update(new)
        return len(new)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _recent(self) -> list[Path]:
        since = time.time() - REPEATS_SECONDS
        files = self._folder.glob("*.ndjson")
        return sorted(file for file in files if file.stat().st_mtime >= since)

    def _look_at(self, file: Path) -> None:
        """Learn the lines that were written since the last time, by us or by others."""
        size, known = file.stat().st_size, self._read.get(file, 0)
        if size == known:
            return
        with file.open("r+b") as source:
            source.seek(known)
            for line in source:
                if not line.endswith(b"\n"):
                    # Nobody writes now, so whoever wrote this died of it: it was never confirmed.
                    source.truncate(known)
                    break
                self._known[file].add(_key(line))
                known += len(line)
        self._read[file] = known

    def _current(self) -> Path:
        files = sorted(self._folder.glob("*.ndjson"))
        if files and files[-1].stat().st_size < self._max_bytes:
            return files[-1]
        file = self._folder / f"{time.time_ns():020}.ndjson"
        file.touch()
        # The name must survive as well as what is in the file.
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return file


def _key(line: bytes) -> tuple[str, int]:
    found = orjson.loads(line)
    return found["id"], found["seq"]


def line_of(payload: Payload) -> bytes:
    """Return the line of a document."""
    document, prediction = payload.document, payload.prediction
    return orjson.dumps(
        {
            "id": str(document.id),
            "seq": document.seq,
            "version": document.version,
            "category": prediction.category if prediction else None,
            "topics": payload.topics,
            "value": payload.value,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


class Writer:
    """Lets what comes at the same time share one write: an fsync may take 10 ms."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, line: bytes) -> None:
        """Return when the line is on disk."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((line, done))
        if self._task is None:
            self._task = asyncio.create_task(self._flush())
        await done

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            failure: Exception | None = None
            try:
                await asyncio.to_thread(self._archive.append, [line for line, _ in batch])
            except Exception as error:  # noqa: BLE001  (each delivery hears of it, and is retried)
                failure = error
            for _, done in batch:
                if done.done():
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)
        self._task = None


class ArchiveContext(Context):
    """What the collector keeps between its calls."""

    writer: Writer


@asynccontextmanager
async def open_archive(ctx: ArchiveContext) -> AsyncIterator[None]:
    """Open the folder when the process starts, and finish writing when it stops."""
    folder = Path(os.environ.get("ARCHIVE_FOLDER", "archive"))
    ctx.writer = Writer(Archive(folder))
    yield
    await ctx.writer.close()


@collector("ndjson-files", lifecycle=open_archive, ctx=ArchiveContext)
async def archive(payload: Payload, ctx: ArchiveContext) -> Ok:
    """Append a document; it counts as delivered when it is on disk."""
    await ctx.writer.write(line_of(payload))
    return Ok()
