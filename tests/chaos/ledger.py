"""What clients know: every document that was sent, and what they were told of it.

"Accepted" is what was confirmed: a 202, or a result line that says so. Behind everything else but a
refusal (503, a broken connection, no answer in time) a document is *doubtful*: it may be taken or
not, and as the append may be on its way still, even later than one that was confirmed meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """What a client was told."""

    ACCEPTED = "accepted"
    DOUBTFUL = "doubtful"
    REFUSED = "refused"


@dataclass(slots=True, kw_only=True)
class Sent:
    """One version of one document, as a client sent it.

    Attributes:
        token: the number in its content; no other has it.
        version: as the client gave it, 0 without one.
        request: of several documents sent together, and the place among them: later ones win.
        web: which web process was asked.
        began_at: monotonic seconds before the request.
        ended_at: behind its answer.
    """

    token: int
    id: str
    version: int
    request: tuple[int, int]
    web: str
    began_at: float
    ended_at: float = float("inf")
    outcome: Outcome = Outcome.DOUBTFUL

    def certainly_before(self, other: Sent) -> bool:
        """Whether both are known to be appended, and this one first."""
        if not self.outcome == other.outcome == Outcome.ACCEPTED:
            return False
        if self.request[0] == other.request[0]:
            return self.request[1] < other.request[1]
        return self.ended_at < other.began_at


@dataclass
class Ledger:
    """Everything that was sent; for many threads.

    Attributes:
        answers: how often each status or failure was seen.
        unexpected: answers that no fault excuses.
    """

    answers: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    _sent: dict[str, list[Sent]] = field(default_factory=lambda: defaultdict(list))
    _accepted_at: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tokens: int = 0
    _requests: int = 0

    def begin(self, documents: Sequence[tuple[str, int]], web: str) -> list[Sent]:
        """Note a request that is about to be made; ids and versions in their order."""
        with self._lock:
            self._requests += 1
            began = []
            for place, (document_id, version) in enumerate(documents):
                self._tokens += 1
                began.append(
                    Sent(
                        token=self._tokens,
                        id=document_id,
                        version=version,
                        request=(self._requests, place),
                        web=web,
                        began_at=time.monotonic(),
                    )
                )
            for sent in began:
                self._sent[sent.id].append(sent)
            return began

    def end(self, sent: Sent, outcome: Outcome) -> None:
        """Note what the client was told."""
        with self._lock:
            sent.outcome = outcome
            sent.ended_at = time.monotonic()
            if outcome is Outcome.ACCEPTED:
                self._accepted_at.setdefault(sent.id, sent.ended_at)

    def note(self, answer: str) -> None:
        """Count an answer."""
        with self._lock:
            self.answers[answer] += 1

    def all(self) -> dict[str, list[Sent]]:
        """Return what was sent, by id."""
        with self._lock:
            return {one: list(versions) for one, versions in self._sent.items()}

    def count(self, outcome: Outcome) -> int:
        """Return how many documents had an outcome."""
        return sum(sent.outcome is outcome for versions in self.all().values() for sent in versions)

    def accepted_ids(self, before: float = float("inf")) -> set[str]:
        """Return the ids that were confirmed by a time, monotonic seconds."""
        with self._lock:
            return {one for one, at in self._accepted_at.items() if at <= before}


def fault_of_stored(versions: Sequence[Sent], stored: tuple[int, int] | None) -> str | None:
    """Say what is wrong with what is stored under an id, None when it is as promised.

    Args:
        versions: all that were sent under this id.
        stored: token and version found; None when nothing is.
    """
    accepted = [one for one in versions if one.outcome is Outcome.ACCEPTED]
    if stored is None:
        return f"{len(accepted)} accepted, nothing is stored" if accepted else None
    token, version = stored
    winner = next((one for one in versions if one.token == token), None)
    if winner is None:
        return f"token {token} is stored, which nobody sent under this id"
    if winner.version != version:
        return f"token {token} was sent as version {winner.version}, stored as {version}"
    if winner.outcome is Outcome.REFUSED:
        return f"token {token} was refused, and is stored"
    for one in accepted:
        newer = one.version > winner.version or (
            one.version == winner.version and winner.certainly_before(one)
        )
        if newer:
            return (
                f"token {winner.token} (version {winner.version}) is stored, and token"
                f" {one.token} (version {one.version}), which was accepted, is newer"
            )
    return None
