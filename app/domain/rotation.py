"""Rotating what signs: the new signs at once, the old goes on beside it for a while.

A receiver that knows either secret (or public key) then accepts every webhook.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar, Literal, TypedDict

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.domain.errors import SecretsOverlap
from app.domain.signing import decode_secret

DEFAULT_OVERLAP_SECONDS = 24 * 3600
MAX_OVERLAP_SECONDS = 30 * 24 * 3600
MAX_OLD = 4
"""Each costs a signature in every request, and a place in its head."""

OverlapSeconds = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_OVERLAP_SECONDS,
        description="How long what signed until now signs too; 0 ends it at once.",
    ),
]


def _usable_secret(value: str | None) -> str | None:
    if value is not None:
        decode_secret(value)
    return value


Secret = Annotated[
    str | None,
    Field(
        repr=False,
        description="whsec_ and base64 of 24 to 64 bytes; generated when left out.",
    ),
    AfterValidator(_usable_secret),
]
Signatures = Annotated[
    list[Literal["v1", "v1a"]],
    Field(
        min_length=1,
        max_length=2,
        json_schema_extra={"uniqueItems": True},
        description="`v1`: by the destination's secret; `v1a`: by the installation's key pair,"
        " whose public half is at `/webhook-keys`.",
    ),
    AfterValidator(lambda value: list(dict.fromkeys(value))),
]


class OldSecret(TypedDict):
    """A secret that was replaced.

    Attributes:
        secret: as it is stored.
        expires_at: unix seconds, from when on it does not sign.
    """

    secret: str
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookKey:
    """A key pair of the installation, for signatures ``v1a``.

    Attributes:
        public_key: ``whpk_…``.
        secret_key: ``whsk_…`` as it is stored.
        expires_at: from when on it does not sign; None for the current one.
    """

    id: uuid.UUID
    public_key: str
    secret_key: str = field(repr=False)
    created_at: datetime
    expires_at: datetime | None


class SecretRotation(BaseModel):
    """How to rotate a destination's secret."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", hide_input_in_errors=True, strict=True
    )

    secret: Secret = None
    overlap_seconds: OverlapSeconds = DEFAULT_OVERLAP_SECONDS


class KeyRotation(BaseModel):
    """How to rotate the installation's key."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", hide_input_in_errors=True, strict=True
    )

    overlap_seconds: OverlapSeconds = DEFAULT_OVERLAP_SECONDS


def in_force(old: Sequence[OldSecret], now: datetime) -> list[OldSecret]:
    """Return the replaced secrets that still sign, the newest first."""
    return [one for one in old if one["expires_at"] > now.timestamp()]


def with_replaced(
    old: Sequence[OldSecret], replaced: str, overlap_seconds: int, now: datetime
) -> list[OldSecret]:
    """Return the old secrets once the current one has become one of them.

    None outlives the overlap: behind it only the new secret signs.

    Raises:
        SecretsOverlap: too many are still in force.
    """
    if overlap_seconds == 0:
        return []
    latest = int(now.timestamp()) + overlap_seconds
    kept = [
        OldSecret(secret=one["secret"], expires_at=min(one["expires_at"], latest))
        for one in in_force(old, now)
    ]
    if len(kept) >= MAX_OLD:
        raise SecretsOverlap(MAX_OLD)
    return [OldSecret(secret=replaced, expires_at=latest), *kept]
