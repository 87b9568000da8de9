"""Destinations: what an operator gives, and what Docyard keeps."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.domain.concurrency import Bounds
from app.domain.credentials import Auth, Headers
from app.domain.deliveries import RetryPolicy
from app.domain.delivery_rules import (
    BatchInput,
    ConcurrencyInput,
    MaxPerSecond,
    Ordered,
    Queue,
    QueueKind,
    RetryInput,
)
from app.domain.documents import MAX_LABEL_LENGTH, Label
from app.domain.errors import DestinationInvalid, InvalidInput, Violation
from app.domain.filters import parse_filter
from app.domain.identifiers import new_id
from app.domain.operational_events import subscription_fault
from app.domain.rotation import OldSecret, Secret, Signatures, WebhookKey
from app.domain.signing import new_secret
from app.domain.text import text_fault
from app.domain.topics import pattern_fault
from app.domain.urls import MAX_URL_LENGTH, normalised_url

MAX_KEY_LENGTH = 100
MAX_DESCRIPTION_LENGTH = 1000
DEFAULT_TIMEOUT_SECONDS = 15.0
MAX_TIMEOUT_SECONDS = 60.0
MAX_TOPICS = 100
MAX_CATEGORIES = 200
MAX_EVENTS = 50
SEALED_FIELDS = frozenset({"headers", "auth"})

Body = Literal["envelope", "raw", "cloudevents", "cloudevents-binary"]
Kind = Literal["webhook", "collector"]
OF_CODE = frozenset(
    {"key", "timeout_seconds", "topics", "categories", "documents"}  # what it says
    | {"url", "body", "headers", "auth", "signatures"}  # what it has no use for
)
"""Fields of a collector that its code alone decides about."""


def _storable_text(value: str) -> str:
    if fault := text_fault(value):
        raise ValueError(fault)
    return value


def _pattern(value: str) -> str:
    if fault := text_fault(value) or pattern_fault(value):
        raise ValueError(fault)
    return value


def _subscription(value: str) -> str:
    if fault := subscription_fault(value):
        raise ValueError(fault)
    return value


Key = Annotated[
    str,
    Field(
        max_length=MAX_KEY_LENGTH,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$",
        description="Short unique name: letters, digits and . _ : -",
    ),
]
Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_URL_LENGTH,
        description="Where webhooks are POSTed: http or https, no user name, no fragment.",
    ),
    AfterValidator(_storable_text),
]
Description = Annotated[
    str | None,
    Field(max_length=MAX_DESCRIPTION_LENGTH, description="For people."),
    AfterValidator(lambda value: value if value is None else _storable_text(value)),
]
Enabled = Annotated[bool, Field(description="Whether new documents are planned for it and sent.")]
TimeoutSeconds = Annotated[
    float,
    Field(
        ge=1,
        le=MAX_TIMEOUT_SECONDS,
        description="The whole of one request, from the connection to the end of the answer.",
    ),
]
BodyKind = Annotated[
    Body,
    Field(
        description="`envelope`: the document in JSON with its category; `raw`: its content"
        " alone, as it was sent; `cloudevents` and `cloudevents-binary`: the document as a"
        " CloudEvent 1.0, in JSON or with its members in headers."
    ),
]
TopicPattern = Annotated[
    str, Field(min_length=1, max_length=MAX_LABEL_LENGTH), AfterValidator(_pattern)
]
TopicPatterns = Annotated[
    list[TopicPattern],
    Field(
        max_length=MAX_TOPICS,
        description="Patterns of topics that it subscribes to: `*` is one dotted part, `**` any"
        " number of them.",
    ),
]
Categories = Annotated[
    list[Label],
    Field(max_length=MAX_CATEGORIES, description="Takes only these categories; empty: all."),
]
MinConfidence = Annotated[
    float | None,
    Field(ge=0, le=1, description="Takes only documents whose category is so certain."),
]
Uncertain = Annotated[
    bool,
    Field(
        description="Takes instead what is less certain than `min_confidence` (0.5 where none"
        " is given) or has no category."
    ),
]
PayloadFilter = Annotated[
    dict[str, Any] | None,
    Field(
        description="Takes only documents that meet these conditions on `id`, `category`,"
        " `confidence`, `topics` and `attributes`."
    ),
]

Events = Annotated[
    list[Annotated[str, AfterValidator(_subscription)]],
    Field(
        max_length=MAX_EVENTS,
        description="Operational events that it gets: types, `destination.*`, or `*` for all.",
    ),
]
Documents = Annotated[
    bool, Field(description="Whether it gets documents; `false` for operational events alone.")
]


class DestinationFields(BaseModel):
    """What clients may say of a destination, at first and later."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", hide_input_in_errors=True, strict=True
    )

    # Of changes the defaults are never looked at: what was not sent is not changed.
    key: Key = ""
    url: Url = ""
    description: Description = None
    enabled: Enabled = True
    timeout_seconds: TimeoutSeconds = DEFAULT_TIMEOUT_SECONDS
    concurrency: ConcurrencyInput = ConcurrencyInput()
    max_per_second: MaxPerSecond = None
    retry: RetryInput = RetryInput()
    queue: Queue = "fifo"
    ordered: Ordered = False
    batch: BatchInput | None = None
    body: BodyKind = "envelope"
    topics: TopicPatterns = []
    categories: Categories = []
    min_confidence: MinConfidence = None
    uncertain: Uncertain = False
    filter: PayloadFilter = None
    events: Events = []
    documents: Documents = True
    headers: Headers = None
    auth: Auth = None
    signatures: Signatures = ["v1"]


class DestinationInput(DestinationFields):
    """A destination as a client describes it."""

    key: Key
    url: Url
    secret: Secret = None


class DestinationChanges(DestinationFields):
    """What to change of a destination; fields that are left out stay as they are.

    Null clears ``batch``, ``description``, ``max_per_second``, ``min_confidence``, ``filter``,
    ``headers`` and ``auth``.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A receiver of webhooks, or a function of the user's (``app.domain.collectors``).

    Attributes:
        key: unique among the tenant's destinations that are not deleted.
        url: normalised; empty for a collector.
        secret: ``whsec_…``; signs what is sent. Encrypted as it is stored.
        old_secrets: that were replaced and sign too until they expire, the newest first.
        signatures: versions of the signatures, see ``app.domain.signing``.
        webhook_keys: of the installation, current first, where ``signatures`` want them.
        header_names, sealed_headers: sent with every request; see ``app.domain.credentials``.
        auth_type, sealed_auth: likewise the credentials.
        timeout_seconds: the whole of one request.
        min_concurrency, max_concurrency: bounds of the requests in flight, see ``bounds``.
        max_per_second: requests that may begin in a second, None for any number.
        retry_schedule, max_age_seconds: how long to go on, see ``retry_policy``.
        queue: in which order it gets what is due.
        ordered: whether versions of a document come one after the other.
        batch: a ``BatchInput`` in JSON, None for one document a request.
        body: what a request carries.
        topics: patterns that it subscribes to, see ``app.domain.topics``.
        categories, min_confidence, uncertain, filter: which of the documents that are addressed to
            it it takes, see ``app.domain.admission``.
        events: operational events that it gets, see ``app.domain.operational_events``.
        documents: False for one that gets nothing else.
        parent_id: of the destination whose secret, timeout and body it shares, for URLs that
            nobody registered; None for all others.
        disabled_at: when Docyard stopped on its own accord (410), None otherwise.
        disabled_reason: why it did.
        paused_at: since when its deliveries are held, None while they are not.
    """

    tenant_id: int
    id: uuid.UUID
    key: str
    url: str
    description: str | None
    secret: str = field(repr=False)
    enabled: bool
    timeout_seconds: float
    created_at: datetime
    updated_at: datetime
    kind: Kind = "webhook"
    min_concurrency: int = 1
    max_concurrency: int | None = None
    max_per_second: float | None = None
    retry_schedule: Sequence[float] | None = None
    max_age_seconds: float | None = None
    queue: QueueKind = "fifo"
    ordered: bool = False
    batch: dict[str, Any] | None = None
    body: Body = "envelope"
    topics: Sequence[str] = ()
    categories: Sequence[str] = ()
    min_confidence: float | None = None
    uncertain: bool = False
    filter: dict[str, Any] | None = None
    events: Sequence[str] = ()
    documents: bool = True
    header_names: Sequence[str] = ()
    sealed_headers: str | None = field(default=None, repr=False)
    auth_type: str | None = None
    sealed_auth: str | None = field(default=None, repr=False)
    signatures: Sequence[str] = ("v1",)
    old_secrets: Sequence[OldSecret] = field(default=(), repr=False)
    webhook_keys: Sequence[WebhookKey] = ()
    parent_id: uuid.UUID | None = None
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    paused_at: datetime | None = None

    def bounds(self, usual_max: int) -> Bounds:
        """Return the bounds of the requests in flight, with what is usual where none is given."""
        most = self.max_concurrency or max(usual_max, self.min_concurrency)
        return Bounds(min=self.min_concurrency, max=most)

    def retry_policy(self, usual: RetryPolicy) -> RetryPolicy:
        """Return how long to go on, with what is usual where nothing is given."""
        given: dict[str, Any] = {}
        if self.retry_schedule is not None:
            given["ladder_seconds"] = tuple(self.retry_schedule)
        if self.max_age_seconds is not None:
            given["max_age_seconds"] = self.max_age_seconds
        return replace(usual, **given) if given else usual

    @property
    def batching(self) -> BatchInput | None:
        """How documents travel together, None where each goes alone."""
        return None if self.batch is None else BatchInput.model_validate(self.batch)

    @property
    def sends(self) -> bool:
        """Whether its deliveries are sent now; otherwise they are held."""
        return self.enabled and self.paused_at is None


def make_destination(tenant_id: int, given: DestinationInput, *, now: datetime) -> Destination:
    """Return the destination that a client described, with an id and a secret of its own.

    Nothing in it is encrypted yet; headers and credentials are left to ``app.services.sealing``.

    Raises:
        DestinationUrlRefused: the URL is not one that Docyard will call.
        FilterInvalid: the filter cannot be understood.
        DestinationInvalid: two fields do not go together.
    """
    if given.filter is not None:
        parse_filter(given.filter, "/filter")
    made = Destination(
        tenant_id=tenant_id,
        id=new_id(),
        key=given.key,
        url=normalised_url(given.url),
        description=given.description,
        secret=given.secret or new_secret(),
        enabled=given.enabled,
        timeout_seconds=given.timeout_seconds,
        min_concurrency=given.concurrency.min,
        max_concurrency=given.concurrency.max,
        max_per_second=given.max_per_second,
        retry_schedule=given.retry.schedule_seconds,
        max_age_seconds=given.retry.max_age_seconds,
        queue=given.queue,
        ordered=given.ordered,
        batch=None if given.batch is None else given.batch.model_dump(),
        body=given.body,
        topics=given.topics,
        categories=given.categories,
        min_confidence=given.min_confidence,
        uncertain=given.uncertain,
        filter=given.filter,
        events=given.events,
        documents=given.documents,
        header_names=[],
        signatures=given.signatures,
        old_secrets=[],
        created_at=now,
        updated_at=now,
    )
    _check_together(made)
    return made


def changed(destination: Destination, changes: DestinationChanges, *, now: datetime) -> Destination:
    """Return a destination with the fields that were sent; enabling forgets why it was disabled.

    Headers and credentials are left to ``app.services.sealing``.

    Raises:
        DestinationUrlRefused: the URL is not one that Docyard will call.
        FilterInvalid: the filter cannot be understood.
        InvalidInput: the code of a collector says these fields.
        DestinationInvalid: two fields do not go together.
    """
    if destination.kind == "collector" and (said := OF_CODE & changes.model_fields_set):
        sentence = "This is a collector: its code decides about it."
        raise InvalidInput([Violation(f"/{name}", sentence) for name in sorted(said)])
    fields = {name: getattr(changes, name) for name in changes.model_fields_set - SEALED_FIELDS}
    if bounds := fields.pop("concurrency", None):
        fields |= {"min_concurrency": bounds.min, "max_concurrency": bounds.max}
    if retry := fields.pop("retry", None):
        fields |= {
            "retry_schedule": retry.schedule_seconds,
            "max_age_seconds": retry.max_age_seconds,
        }
    if changes.batch is not None:
        fields["batch"] = changes.batch.model_dump()
    if "url" in fields:
        fields["url"] = normalised_url(changes.url)
    if changes.filter is not None:
        parse_filter(changes.filter, "/filter")
    if fields.get("enabled"):
        fields |= {"disabled_at": None, "disabled_reason": None}
    made = replace(destination, **fields, updated_at=now)
    _check_together(made)
    return made


def _check_together(destination: Destination) -> None:
    if destination.batch is not None and destination.kind == "collector":
        sentence = "A collector is called with one document at a time."
        raise DestinationInvalid([Violation("/batch", sentence)])
    if destination.batch is not None and destination.body in {"raw", "cloudevents-binary"}:
        sentence = f"documents cannot travel together as {destination.body!r}, which has no parts"
        raise DestinationInvalid([Violation("/batch", sentence)])
