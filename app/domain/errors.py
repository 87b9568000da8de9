"""Every error that Docyard raises on purpose, as one tree.

::

    DocyardError
    ├── InvalidInput                what was sent is wrong, with the places named
    │   ├── BatchTooLong
    │   ├── DestinationUrlRefused
    │   ├── EncodingUnsupported
    │   ├── EncryptionKeyMissing
    │   ├── ExceedsQueue
    │   ├── FilterInvalid
    │   ├── FormatUnsupported
    │   └── HeadersInvalid
    ├── NotFound
    │   ├── BatchNotFound
    │   ├── DeadLetterNotFound
    │   ├── DeliveryNotFound
    │   ├── DocumentNotFound
    │   ├── DestinationNotFound
    │   ├── RejectedNotFound
    │   └── ReplayNotFound
    ├── Conflict
    │   ├── DeliveryNotReplayable
    │   ├── DestinationKeyTaken
    │   ├── NotRetryable
    │   └── SecretsOverlap
    ├── Unavailable                 try again later; nothing was confirmed
    │   ├── QueueUnavailable
    │   ├── QueueFull
    │   ├── DurabilityInsufficient
    │   ├── DatabaseUnavailable
    │   │   └── SchemaBehind
    │   └── WorkerSilent
    ├── SignatureInvalid            a webhook's signature does not hold
    ├── Undecryptable               what is stored cannot be decrypted here
    ├── RouterFailed                the user's own router raised, or answered nonsense
    ├── ModelUnusable               the trained model cannot be loaded
    └── SettingsInvalid             start-up refused

A class takes the facts and makes its own sentence. The domain does not know HTTP:
``app/api/errors.py`` maps classes to statuses, and a test fails when one is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence
    from pathlib import Path


class DocyardError(Exception):
    """Base of all. ``code`` is stable and machine-readable; ``str()`` is for people."""

    code: ClassVar[str] = "error"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with an input.

    Attributes:
        pointer: RFC 6901 JSON pointer to the place, "" for the whole.
        detail: what is wrong there; never the value itself.
    """

    pointer: str
    detail: str


class InvalidInput(DocyardError):
    """What was sent does not hold what it must; nothing of it was kept."""

    code = "invalid_input"

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        first = self.violations[0]
        place = f" at {first.pointer}" if first.pointer else ""
        more = f" (and {len(self.violations) - 1} more)" if len(self.violations) > 1 else ""
        super().__init__(f"{first.detail}{place}{more}")

    def within(self, pointer: str) -> InvalidInput:
        """Return the same about a part that stands at ``pointer`` of what was sent."""
        return InvalidInput(
            [Violation(pointer + one.pointer, one.detail) for one in self.violations]
        )


class BatchTooLong(InvalidInput):
    """An array has more elements than are queued at once."""

    code = "batch_too_long"

    def __init__(self, most: int) -> None:
        sentence = (
            f"A batch may have {most} elements; send several,"
            " or documents as NDJSON to /documents/bulk."
        )
        super().__init__([Violation("", sentence)])


class DestinationUrlRefused(InvalidInput):
    """A destination's URL is not one that Docyard will call."""

    code = "destination_url_refused"

    def __init__(self, reason: str) -> None:
        super().__init__([Violation("/url", reason)])


class ExceedsQueue(InvalidInput):
    """What came at once is larger than all the memory of Redis that may be filled."""

    code = "exceeds_queue"

    def __init__(self, maxmemory: int) -> None:
        sentence = (
            f"Redis has {maxmemory / 1_000_000:.0f} MB in all and could not hold this even when"
            " empty; send it in smaller parts."
        )
        super().__init__([Violation("", sentence)])


class EncodingUnsupported(InvalidInput):
    """A body is compressed in a way that is not understood."""

    code = "encoding_unsupported"

    def __init__(self, encoding: str) -> None:
        sentence = (
            f"Content-Encoding {encoding[:50]!r} is not understood; /documents/bulk takes gzip."
        )
        super().__init__([Violation("", sentence)])


class EncryptionKeyMissing(InvalidInput):
    """Something is to be stored that is only stored encrypted, and there is no key."""

    code = "encryption_key_missing"

    def __init__(self, pointer: str) -> None:
        sentence = (
            "This is only stored encrypted, and ENCRYPTION_KEYS is not set. Make a key with"
            " `openssl rand -base64 32` and give it to web and workers as ENCRYPTION_KEYS."
        )
        super().__init__([Violation(pointer, sentence)])


class FilterInvalid(InvalidInput):
    """A destination's filter cannot be understood."""

    code = "filter_invalid"


class DestinationInvalid(InvalidInput):
    """Fields of a destination do not go together."""

    code = "destination_invalid"


class FormatUnsupported(InvalidInput):
    """A CloudEvent is in a format that is not understood."""

    code = "format_unsupported"

    def __init__(self, media_type: str) -> None:
        sentence = f"Content-Type {media_type[:50]!r} is not understood; CloudEvents in JSON are."
        super().__init__([Violation("", sentence)])


class HeadersInvalid(InvalidInput):
    """A destination's headers are not what can be sent with its requests."""

    code = "headers_invalid"


class NotFound(DocyardError):
    """What was named does not exist (or does not any more)."""

    code = "not_found"


class DocumentNotFound(NotFound):
    """No document is stored under this id; it may still be queued."""

    code = "document_not_found"

    def __init__(self, document_id: uuid.UUID) -> None:
        self.document_id = document_id
        super().__init__(
            f"No document {document_id} is stored. If it was accepted a moment ago,"
            " it may still be queued."
        )


class BatchNotFound(NotFound):
    """Nothing is known of a batch under this id."""

    code = "batch_not_found"

    def __init__(self, batch_id: uuid.UUID) -> None:
        self.batch_id = batch_id
        super().__init__(f"No batch {batch_id} is known.")


class DestinationNotFound(NotFound):
    """No destination has this id."""

    code = "destination_not_found"

    def __init__(self, destination_id: uuid.UUID) -> None:
        self.destination_id = destination_id
        super().__init__(f"No destination {destination_id} exists.")


class DeliveryNotFound(NotFound):
    """No delivery has this id."""

    code = "delivery_not_found"

    def __init__(self, delivery_id: str) -> None:
        self.delivery_id = delivery_id
        super().__init__(f"No delivery {delivery_id} is known.")


class RejectedNotFound(NotFound):
    """No document that was set aside has this id."""

    code = "rejected_not_found"

    def __init__(self, seq: int) -> None:
        self.seq = seq
        super().__init__(f"No document {seq} is set aside: it was retried, dropped or never was.")


class DeadLetterNotFound(NotFound):
    """No dead letter has this id."""

    code = "dead_letter_not_found"

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        super().__init__(f"No dead letter {message_id} is kept.")


class ReplayNotFound(NotFound):
    """No replay has this id."""

    code = "replay_not_found"

    def __init__(self, replay_id: uuid.UUID) -> None:
        self.replay_id = replay_id
        super().__init__(f"No replay {replay_id} is known.")


class Conflict(DocyardError):
    """The request contradicts what is there."""

    code = "conflict"


class DeliveryNotReplayable(Conflict):
    """A delivery cannot be planned anew."""

    code = "delivery_not_replayable"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"This delivery cannot be replayed: {reason}.")


class NotRetryable(Conflict):
    """What was set aside cannot be put back to where it came from."""

    code = "not_retryable"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"This cannot be retried: {reason}. It stays where it is.")


class DestinationKeyTaken(Conflict):
    """Another destination already answers to this key."""

    code = "destination_key_taken"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"A destination with the key {key!r} exists already.")


class SecretsOverlap(Conflict):
    """A secret was rotated so often that too many are in force."""

    code = "secrets_overlap"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most} replaced secrets still sign beside the current one. Wait until one expires,"
            " or rotate with overlap_seconds 0, which ends them all at once."
        )


class Unavailable(DocyardError):
    """A part that is needed is away or too far behind; what was sent is not confirmed.

    Attributes:
        retry_after_seconds: when it is worth trying again.
    """

    code = "unavailable"

    def __init__(self, sentence: str, *, retry_after_seconds: int = 1) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(sentence)


class QueueUnavailable(Unavailable):
    """Redis did not acknowledge the append."""

    code = "queue_unavailable"

    def __init__(self, reason: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(
            f"The queue did not confirm the document ({reason}); send it again.",
            retry_after_seconds=retry_after_seconds,
        )


class QueueUnreadable(Unavailable):
    """Redis did not say what it holds."""

    code = "queue_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The queue does not say what it holds ({reason}).")


class QueueFull(Unavailable):
    """A lane is above its high-water mark, or Redis is short of memory."""

    code = "queue_full"

    def __init__(self, lane: str, reason: str, *, retry_after_seconds: int = 5) -> None:
        self.lane = lane
        super().__init__(
            f"The lane {lane} takes no more documents for now ({reason}).",
            retry_after_seconds=retry_after_seconds,
        )


class DurabilityInsufficient(Unavailable):
    """Redis promises less than is required of it; what was sent is not confirmed."""

    code = "durability_insufficient"

    def __init__(self, found: str, required: str) -> None:
        super().__init__(
            f"The queue's durability is {found!r} now, and {required!r} is required;"
            " nothing is accepted until it is.",
            retry_after_seconds=5,
        )


class DatabaseUnavailable(Unavailable):
    """Postgres could not be reached, did not answer in time, or does not let our role in."""

    code = "database_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The database cannot be reached ({reason}).", retry_after_seconds=2)


class SchemaBehind(DatabaseUnavailable):
    """The database lacks what this version needs; somebody is about to migrate it."""

    code = "schema_behind"

    def __init__(self, found: str | None, needed: str) -> None:
        Unavailable.__init__(
            self,
            f"The database's schema is {found or 'missing'}, and {needed} is needed:"
            " run `python -m app migrate`.",
            retry_after_seconds=2,
        )


class WorkerSilent(Unavailable):
    """No ingest worker answered a question in time."""

    code = "worker_silent"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"No ingest worker answered within {seconds:g} s; is one running?",
            retry_after_seconds=2,
        )


class SignatureInvalid(DocyardError):
    """A webhook's headers, time or signature do not hold."""

    code = "signature_invalid"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The webhook signature does not hold: {reason}.")


class Undecryptable(DocyardError):
    """Something that is stored encrypted cannot be read by this process."""

    code = "undecryptable"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"What is stored cannot be decrypted: {reason}.")


class RouterFailed(DocyardError):
    """The router that ``ROUTER`` names did not route a document."""

    code = "router_failed"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The router failed: {reason}.")


class ModelUnusable(DocyardError):
    """The trained model cannot be loaded; says why and what to do."""

    code = "model_unusable"

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        self.path = path
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"The model in {path} cannot be used: {reason}. {remedy}")


class SettingsInvalid(DocyardError):
    """The settings do not fit together; the process refuses to start."""

    code = "settings_invalid"
