"""Which deliveries: the parameters that listing and replaying share."""

from __future__ import annotations

import uuid
from typing import Annotated, ClassVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import Engine

from app.domain.delivery_ids import delivery_id, parse_delivery_id
from app.domain.documents import DEFAULT_TENANT
from app.domain.envelopes import parse_webhook_id, webhook_id
from app.domain.text import text_fault
from app.services.deliveries import with_destination_key
from app.storage.delivery_search import DeliveryFilter, Wanted

DeliveryId = Annotated[
    str,
    AfterValidator(lambda value: delivery_id(parse_delivery_id(value))),
    Field(description="`dlv_…`, as `GET /deliveries` gives it."),
]
WebhookId = Annotated[
    str,
    AfterValidator(lambda value: webhook_id(*parse_webhook_id(value))),
    Field(description="`msg_…`, as a receiver got it."),
]


def _storable(value: str) -> str:
    if fault := text_fault(value):
        raise ValueError(fault)
    return value


class DeliveryWhere(BaseModel):
    """Which deliveries; all that is given must hold."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    destination_id: uuid.UUID | None = None
    destination_key: Annotated[str, AfterValidator(_storable)] | None = None
    document_id: uuid.UUID | None = None
    webhook_id: WebhookId | None = None
    batch_id: uuid.UUID | None = None
    since: Annotated[
        AwareDatetime | None, Field(description="Of documents accepted from this moment on.")
    ] = None
    until: Annotated[AwareDatetime | None, Field(description="And before this one.")] = None
    status: Annotated[
        int | None, Field(ge=100, le=999, description="HTTP status of the last answer.")
    ] = None
    error: Annotated[
        Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_storable)] | None,
        Field(description="Part of the last error."),
    ] = None

    def filter(self, engine: Engine, states: tuple[Wanted, ...]) -> DeliveryFilter:
        """Return this as a filter.

        Raises:
            InvalidInput: no destination has the key.
        """
        names = parse_webhook_id(self.webhook_id) if self.webhook_id else (None, None, None)
        wanted = DeliveryFilter(
            states=states,
            destination_id=self.destination_id,
            document_id=self.document_id or names[0],
            seq=names[1],
            generation=names[2],
            batch_id=self.batch_id,
            since=self.since,
            until=self.until,
            status=self.status,
            error=self.error,
        )
        return with_destination_key(engine, DEFAULT_TENANT, wanted, self.destination_key)
