"""Names on the wire: queues, actors, Redis keys. Workers of two versions meet on them at a deploy.

Layout of Dramatiq's Redis broker, which it documents for other languages: a list of ids
``NS:QUEUE``, a hash of bodies ``NS:QUEUE.msgs``, a set of unacknowledged ids per broker
``NS:__acks__.BROKER.QUEUE``, heartbeats ``NS:__heartbeats__``, dead letters ``NS:QUEUE.XQ``.
"""

from __future__ import annotations

import uuid

from app.domain.documents import Lane

DELIVER = "deliver"
"""Queue of the doorbells."""

COLLECT = "collect"
"""Not a queue of Dramatiq's: the channel on which collectors are rung."""

QUESTIONS = "questions"
"""Not a queue of Dramatiq's: what web processes ask ingest workers."""

LANES = tuple(lane.value for lane in Lane)
"""Queues of the chunks, in the order in which they are taken."""

INGEST_CHUNK = "chunk.ingest"
DELIVER_DESTINATION = "destination.deliver"

_MINUTE_MS = 60_000


class Keys:
    """Redis keys under one namespace.

    Attributes:
        seq: the last order number given.
        accepted: hash, lane to documents ever appended.
        queued: hash, lane to documents appended and not yet settled: waiting, being worked on or
            delayed.
        heartbeats: sorted set, broker ids by when they were last heard of.
        questions: list of the ids of questions that nobody has taken.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.seq = f"{namespace}:seq"
        self.accepted = f"{namespace}:accepted"
        self.queued = f"{namespace}:queued"
        self.heartbeats = f"{namespace}:__heartbeats__"
        self.questions = f"{namespace}:{QUESTIONS}"

    def ids(self, queue: str) -> str:
        """List of message ids, the oldest first."""
        return f"{self.namespace}:{queue}"

    def bodies(self, queue: str) -> str:
        """Hash of message bodies, of those being worked on as well."""
        return f"{self.namespace}:{queue}.msgs"

    def unacknowledged(self, broker_id: str, queue: str) -> str:
        """Set of the ids that a broker has fetched."""
        return f"{self.namespace}:__acks__.{broker_id}.{queue}"

    def dead(self, queue: str) -> str:
        """Sorted set of given-up ids; their bodies in the hash with ``.msgs`` behind."""
        return f"{self.namespace}:{queue}.XQ"

    def wake(self, queue: str) -> str:
        """Channel on which a push to a queue is announced."""
        return f"{self.namespace}:wake:{queue}"

    def appended(self, chunk_id: uuid.UUID) -> str:
        """Set of the chunks of one minute that were appended; a repeat of the append sees itself.

        The minute is the chunk id's own (UUIDv7), so a repeat looks where the first try wrote. A
        set takes a third of the memory of a key per chunk, which counts on a server of 25 MB.
        """
        return f"{self.namespace}:appended:{(chunk_id.int >> 80) // _MINUTE_MS}"

    def batch(self, batch_id: uuid.UUID) -> str:
        """Hash of a batch: documents accepted, and whether there will be more."""
        return f"{self.namespace}:batch:{batch_id}"

    def rung(self, tenant_id: int, destination_id: uuid.UUID) -> str:
        """Flag that a doorbell for a destination is already queued."""
        return f"{self.namespace}:rung:{tenant_id}:{destination_id}"

    def question(self, question_id: str) -> str:
        """What is asked; expires."""
        return f"{self.namespace}:question:{question_id}"

    def answer(self, question_id: str) -> str:
        """What a worker answered; expires."""
        return f"{self.namespace}:answer:{question_id}"
