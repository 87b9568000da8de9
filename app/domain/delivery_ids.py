"""Ids of deliveries: the whole key in a word.

A ``webhook-id`` names what a receiver gets, and is the same for all destinations of a document; the
id of a delivery names one of them.
"""

from __future__ import annotations

import base64
import binascii
import struct
import uuid
from typing import NamedTuple

PREFIX = "dlv_"
_KEY = struct.Struct(">16sQ16sH")
_TEXT_LENGTH = len(PREFIX) + _KEY.size * 4 // 3


class DeliveryPlace(NamedTuple):
    """A delivery's key within its tenant.

    Attributes:
        document_id: of the document, or of the operational event.
        seq: order number of the version.
        generation: of the plan; 0 for the first, more for replays.
    """

    document_id: uuid.UUID
    seq: int
    destination_id: uuid.UUID
    generation: int


def delivery_id(place: DeliveryPlace) -> str:
    """Return the id of a delivery."""
    packed = _KEY.pack(
        place.document_id.bytes, place.seq, place.destination_id.bytes, place.generation
    )
    return PREFIX + base64.urlsafe_b64encode(packed).decode()


def parse_delivery_id(text: str) -> DeliveryPlace:
    """Return the key that an id stands for.

    Raises:
        ValueError: it is no id of a delivery.
    """
    if not text.startswith(PREFIX) or len(text) != _TEXT_LENGTH:
        raise ValueError(f"ids of deliveries begin with {PREFIX} and have {_TEXT_LENGTH} letters")
    try:
        packed = base64.b64decode(text.removeprefix(PREFIX), altchars=b"-_", validate=True)
        document, seq, destination, generation = _KEY.unpack(packed)
    except (binascii.Error, struct.error) as error:  # the latter where it ends in padding
        raise ValueError("this is no id of a delivery") from error
    if seq >= 2**63 or generation >= 2**15:
        raise ValueError("this is no id of a delivery")
    return DeliveryPlace(uuid.UUID(bytes=document), seq, uuid.UUID(bytes=destination), generation)
