import json
import uuid
from datetime import UTC, datetime

import pytest

from app.domain.envelopes import (
    JSON,
    PARSED_CHARACTERS,
    TEXT,
    DocumentData,
    document_classified,
    raw,
    webhook_id,
)

DOCUMENT = uuid.UUID("018f4e3a-0000-7000-8000-00000000002a")
AT = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)


def test_a_webhook_id_differs_by_version_and_plan_and_has_no_dot():
    ids = [webhook_id(DOCUMENT, 17), webhook_id(DOCUMENT, 18), webhook_id(DOCUMENT, 17, 1)]
    assert ids == [
        "msg_018f4e3a00007000800000000000002a_17",
        "msg_018f4e3a00007000800000000000002a_18",
        "msg_018f4e3a00007000800000000000002a_17_1",
    ]


def test_the_body_is_a_standard_webhooks_envelope_around_the_document():
    data = DocumentData(
        id=DOCUMENT,
        version=3,
        created_at=AT,
        updated_at=AT,
        category="sci.space",
        confidence=0.93,
        model_version="m1",
        content="Grüße ☃",
        topics=["a.b"],
        attributes={"n": 1},
    )
    assert json.loads(document_classified(AT, data).body) == {
        "type": "document.classified",
        "timestamp": "2026-11-20T12:00:00.123456Z",
        "data": {
            "id": str(DOCUMENT),
            "version": 3,
            "created_at": "2026-11-20T12:00:00.123456Z",
            "updated_at": "2026-11-20T12:00:00.123456Z",
            "category": "sci.space",
            "confidence": 0.93,
            "model_version": "m1",
            "content": "Grüße ☃",
            "topics": ["a.b"],
            "attributes": {"n": 1},
        },
    }


LONG = "x" * PARSED_CHARACTERS


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{"a": 1}', JSON),
        (" [1,\t2] ", JSON),
        ("{not json", TEXT),
        ("[note] nothing", TEXT),
        ("plain näme", TEXT),
        ('"a string"', TEXT),
        ("null", TEXT),
        (' \r\n{"a" : 1.10}\t', JSON),
        ("{ }", JSON),
        ("[]", JSON),
        ("{\\rtf1 text}", TEXT),
        (f'{{"a": "{LONG}"}}\n', JSON),
        (f'[["{LONG}"]]', JSON),
        (f'{{"{LONG}}}', JSON),  # too long to be parsed for its type
        (f"{{\\rtf1 {LONG}}}", TEXT),
        (f"[see there] {LONG}]", TEXT),
        (f"[1] {LONG}", TEXT),
        (" " * len(LONG), TEXT),
    ],
)
def test_raw_is_the_content_byte_for_byte(content, kind):
    payload = raw(content)
    assert payload.body == content.encode()
    assert payload.content_type == kind
