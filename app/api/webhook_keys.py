"""``/webhook-keys``."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from app.api.parts import Parts, parts_of
from app.domain.documents import DEFAULT_TENANT
from app.domain.rotation import KeyRotation
from app.services.webhook_keys import list_webhook_keys, rotate_webhook_key

router = APIRouter(tags=["destinations"])


class WebhookKeyOutput(BaseModel):
    """The public half of a key pair; ``expires_at`` is null for the current one."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    public_key: str
    created_at: datetime
    expires_at: datetime | None


class WebhookKeyList(BaseModel):
    """The keys that sign, the current one first."""

    items: list[WebhookKeyOutput]


@router.get("/webhook-keys")
def read_webhook_keys(parts: Annotated[Parts, Depends(parts_of)]) -> WebhookKeyList:
    """List the public keys (`whpk_…`) that receivers verify signatures `v1a` with."""
    keys = list_webhook_keys(parts.engine, DEFAULT_TENANT, parts.vault)
    return WebhookKeyList(items=[WebhookKeyOutput.model_validate(one) for one in keys])


@router.post("/webhook-keys/rotate")
def rotate_webhook_keys(
    parts: Annotated[Parts, Depends(parts_of)], given: KeyRotation | None = None
) -> WebhookKeyList:
    """Begin a new key pair; those before it sign too for `overlap_seconds`, a day by default."""
    overlap_seconds = (given or KeyRotation()).overlap_seconds
    keys = rotate_webhook_key(parts.engine, DEFAULT_TENANT, parts.vault, overlap_seconds)
    return WebhookKeyList(items=[WebhookKeyOutput.model_validate(one) for one in keys])
