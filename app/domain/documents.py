"""Documents as they come in: the validated input, its order key and its lane."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from app.domain.text import json_faults, text_fault

DEFAULT_TENANT = 1
"""Tenant of everything until there are several; part of every table's key from the start."""

DEFAULT_PRIORITY = 1000
HIGH_PRIORITY_BELOW = 100
MAX_PRIORITY = 1_000_000
MAX_VERSION = 2**63 - 1
MAX_SEQ = 2**63 - 1
MAX_LABELS = 64
MAX_LABEL_LENGTH = 200


class Lane(StrEnum):
    """Queues of the intake in the order in which they are taken (design 2.1)."""

    HIGH = "ingest.high"
    NORMAL = "ingest"
    BULK = "ingest.bulk"


class OrderKey(NamedTuple):
    """Decides which of two versions of a document is newer: compared as a row, strictly.

    Attributes:
        version: given by the client, 0 when it gave none.
        seq: given by Redis inside the append; rises in append order over all web processes.
            Microseconds since 1970 by Redis' clock, or one more than the last.
    """

    version: int
    seq: int


def accepted_at(seq: int) -> datetime:
    """When the append happened, by Redis' clock; off only while appends outrun microseconds."""
    return datetime.fromtimestamp(seq / 1_000_000, UTC)


def _storable_text(value: str) -> str:
    if fault := text_fault(value):
        raise ValueError(fault)
    return value


def _storable_json(value: dict[str, Any]) -> dict[str, Any]:
    for fault in json_faults(value):
        message = f"{fault.detail} (at {fault.pointer or 'the top'})"
        raise ValueError(message)
    return value


def _no_other_number(value: Any) -> Any:
    if isinstance(value, bool | float):
        message = "is not an integer"
        raise ValueError(message)  # noqa: TRY004  (Pydantic makes a violation of it)
    return value


Version = Annotated[int, Field(ge=0, le=MAX_VERSION), BeforeValidator(_no_other_number)]
Priority = Annotated[int, Field(ge=0, le=MAX_PRIORITY), BeforeValidator(_no_other_number)]
Label = Annotated[
    str, Field(min_length=1, max_length=MAX_LABEL_LENGTH), AfterValidator(_storable_text)
]
Labels = Annotated[list[Label], Field(max_length=MAX_LABELS)]
Attributes = Annotated[dict[str, Any], AfterValidator(_storable_json)]


class DocumentInput(BaseModel):
    """A document as a client sends it. Fields that were not sent leave an update's old values."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    content: Annotated[
        str,
        Field(min_length=1, description="The text to classify and deliver."),
        AfterValidator(_storable_text),
    ]
    id: Annotated[
        uuid.UUID | None,
        Field(description="Chosen by the client, or a UUIDv7 of ours. Same id: an update."),
    ] = None
    version: Annotated[
        Version | None, Field(description="The higher wins; without it, the later.")
    ] = None
    topics: Annotated[Labels | None, Field(description="Dotted names for delivery by topic.")] = (
        None
    )
    keys: Annotated[Labels | None, Field(description="Destination keys for delivery by key.")] = (
        None
    )
    delivery: Annotated[
        Literal["broadcast", "key", "topic"] | None,
        Field(
            description="How destinations are chosen: all of them, by `keys` or by `topics`. Left"
            " out, keys and topics that are given choose; without either, it is broadcast."
        ),
    ] = None
    priority: Annotated[
        Priority | None, Field(description="Lower is sooner, 1000 is usual; < 100 overtakes.")
    ] = None
    attributes: Annotated[
        Attributes | None,
        Field(description="A JSON object of the client's, stored and delivered as it is."),
    ] = None


def lane_of(priority: int | None) -> Lane:
    """Return the lane of a single document."""
    if priority is not None and priority < HIGH_PRIORITY_BELOW:
        return Lane.HIGH
    return Lane.NORMAL
