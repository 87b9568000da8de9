"""One bulk upload: lines become parts, parts become chunks, and each line has its result."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from app.api.bodies import encode_with_id, in_turns, parse
from app.domain.documents import Lane, lane_of
from app.domain.errors import DocyardError, InvalidInput, Unavailable
from app.domain.limits import DocumentLimits
from app.domain.ndjson import Line, TooLong
from app.queue.append import BatchPart
from app.queue.intake import Intake

PART_DOCUMENTS = 500
PART_BYTES = 1 << 20
PART_RESULTS = 1_000
PARTS_UNDER_WAY = 2
"""Parts that wait for Redis while the next is read."""
PATIENCE_SECONDS = 30.0
"""How long a full queue, or one that is away, holds an upload up before it ends."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0


class LineResult(NamedTuple):
    """What became of one line: accepted under an id, or refused at a place for a reason."""

    line: int
    id: uuid.UUID | None
    code: str | None = None
    pointer: str = ""
    detail: str = ""


class Stopped(Exception):
    """An upload ended before its last line; what was taken stays taken.

    Attributes:
        status: HTTP status, where nothing was answered yet.
        code: stable and machine-readable; also what the batch says of its intake.
        detail: one sentence for people.
        retry_after_seconds: when it is worth going on, None where that would not help.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, retry_after_seconds: int | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        super().__init__(detail)


class Answers(Protocol):
    """Hears of lines in their order, once it is certain what became of them."""

    async def report(self, results: Sequence[LineResult]) -> None:
        """Pass results on to the client, or keep them for later."""


@dataclass(slots=True)
class _Part:
    """What is appended together, per lane, and the results that will then be true."""

    documents: dict[Lane, list[bytes]] = field(default_factory=dict)
    results: list[LineResult] = field(default_factory=list)
    count: int = 0
    size: int = 0

    @property
    def full(self) -> bool:
        return (
            self.count >= PART_DOCUMENTS
            or self.size >= PART_BYTES
            or len(self.results) >= PART_RESULTS
        )


class Upload:
    """Takes the lines of one upload.

    Attributes:
        lines: number of the last line whose result is certain: it and all before it were
            accepted or refused.
        accepted: documents that Redis has acknowledged.
        rejected: lines that were refused.
        stopping: it is to end with what it has, and no longer to wait for room.
    """

    def __init__(
        self,
        intake: Intake,
        batch_id: uuid.UUID,
        answers: Answers,
        limits: DocumentLimits,
        *,
        abort_on_error: bool,
    ) -> None:
        """Begin an upload.

        Args:
            intake: of the process.
            batch_id: whose counts it adds to.
            answers: hears of every line.
            limits: of each document.
            abort_on_error: end with the first line that is refused.
        """
        self.lines = 0
        self.accepted = 0
        self.rejected = 0
        self.stopping = False
        self._intake = intake
        self._batch = BatchPart(batch_id)
        self._answers = answers
        self._parse = partial(parse, limits=limits)
        self._abort_on_error = abort_on_error
        self._part = _Part()
        self._under_way: deque[tuple[_Part, asyncio.Task[None]]] = deque()

    async def take(self, number: int, line: Line) -> None:
        """Take a line.

        Raises:
            Stopped: it was refused and that ends the upload, or Redis takes nothing more.
        """
        refused = await self._read(number, line)
        if refused is not None:
            self._part.results.append(refused)
            if self._abort_on_error:
                await self.settle()
                raise Stopped(
                    422, "line_refused", f"Line {number} was refused; those before it were taken."
                )
        if self._part.full:
            await self.flush()

    async def flush(self) -> None:
        """Send what has gathered on its way; wait while too much is under way.

        Raises:
            Stopped: Redis takes nothing more.
        """
        if self._part.results:
            part, self._part = self._part, _Part()
            self._under_way.append((part, asyncio.create_task(self._append(part))))
        while len(self._under_way) > PARTS_UNDER_WAY:
            await self._settle_first()

    async def settle(self) -> None:
        """Return when the result of every line taken is certain, and reported.

        Raises:
            Stopped: Redis takes nothing more.
        """
        await self.flush()
        while self._under_way:
            await self._settle_first()

    def stop(self) -> None:
        """Ask that it end soon."""
        self.stopping = True

    def cancel(self) -> None:
        """Stop waiting for Redis. Parts that are under way may or may not be taken."""
        for _, task in self._under_way:
            task.cancel()

    async def _read(self, number: int, line: Line) -> LineResult | None:
        """Add a line to the part; return its result if it is refused."""
        if isinstance(line, TooLong):
            return LineResult(number, None, "line_too_long", "", "The line is too long.")
        try:
            document = await in_turns(self._parse, line)
        except InvalidInput as error:
            first = error.violations[0]
            return LineResult(number, None, error.code, first.pointer, first.detail)
        encoded = encode_with_id(document)
        part = self._part
        lane = Lane.BULK if document.priority is None else lane_of(document.priority)
        part.documents.setdefault(lane, []).append(encoded)
        part.count += 1
        part.size += len(encoded)
        part.results.append(LineResult(number, document.id))
        return None

    async def _settle_first(self) -> None:
        part, task = self._under_way[0]
        await task
        self._under_way.popleft()
        self.accepted += part.count
        self.rejected += len(part.results) - part.count
        self.lines = part.results[-1].line
        await self._answers.report(part.results)

    async def _append(self, part: _Part) -> None:
        for lane, documents in part.documents.items():
            await self._append_patiently(lane, documents)

    async def _append_patiently(self, lane: Lane, documents: Sequence[bytes]) -> None:
        """Append as soon as there is room.

        After an outage an append may be repeated whose first try did come through. The ids are
        the same, so the documents are stored once; the batch counts the twins as stale.
        """
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + PATIENCE_SECONDS, FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._intake.submit_many(documents, lane, self._batch)
            except Unavailable as error:
                if self.stopping or loop.time() + pause > until:
                    raise Stopped(
                        503, error.code, str(error), retry_after_seconds=error.retry_after_seconds
                    ) from None
            except DocyardError as error:
                raise Stopped(413, error.code, str(error)) from None
            else:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
