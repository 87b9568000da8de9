import json
import uuid
from datetime import UTC, datetime
from urllib.parse import unquote

import orjson
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary, from_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.http import from_http

from app.domain import cloudevents
from app.domain.cloudevents_out import Event, binary, structured
from app.domain.envelopes import DocumentData, Payload

DOCUMENT = uuid.UUID("018f4e3a-0000-7000-8000-00000000002a")
AT = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
DATA = DocumentData(
    id=DOCUMENT,
    version=3,
    created_at=AT,
    updated_at=AT,
    category="sci.space",
    confidence=0.93,
    model_version="m1",
    content='Grüße ☃ "%\r\n',
    topics=["a.b"],
    attributes={"n": 1},
)
SHOWN = {
    **json.loads(json.dumps(DATA, default=str)),
    "created_at": "2026-11-20T12:00:00.123456Z",
    "updated_at": "2026-11-20T12:00:00.123456Z",
}
SOURCES = [
    "urn:docyard:documents",
    "https://docs.example.com/",
    'https://bücher.example/☃ "x" 100%25\r\nx-more: 1',
]


def event(source: str, **changes: object) -> Event:
    made = Event(source, "msg_1_17", "document.classified", str(DOCUMENT), AT, DATA)
    return made._replace(**changes)


def headers_of(payload: Payload) -> dict[str, str]:
    lines = payload.headers.split("\r\n")
    assert lines.pop() == ""
    return {
        "content-type": payload.content_type,
        **dict(line.split(": ", 1) for line in lines),
    }


def opinions(payload: Payload) -> list[tuple[dict[str, object], object]]:
    """What both readers of the reference package make of a request: its members, and its data."""
    headers = headers_of(payload)
    read = from_binary if payload.headers else from_structured
    new = read(HTTPMessage(headers=headers, body=payload.body), JSONFormat(), CloudEvent)
    old = from_http(headers, payload.body)
    members = dict(new.get_attributes())
    members["time"] = new.get_time()
    older = dict(old.get_attributes())
    older["time"] = datetime.fromisoformat(older["time"])
    if payload.headers:
        older["source"] = unquote(older["source"])  # left encoded by the older reader
    return [(members, new.get_data()), (older, old.get_data())]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("form", [structured, binary])
def test_the_reference_package_reads_the_event(form, source):
    payload = form(event(source))
    for members, data in opinions(payload):
        assert members.pop("datacontenttype", "application/json") == "application/json"
        assert members == {
            "specversion": "1.0",
            "id": "msg_1_17",
            "source": source,
            "type": "document.classified",
            "subject": str(DOCUMENT),
            "time": AT,
        }
        assert data == SHOWN


@pytest.mark.parametrize("form", [structured, binary])
def test_an_event_about_no_document_has_no_subject(form):
    data = orjson.Fragment('{"reason": "HTTP 410 Gone"}')
    for members, shown in opinions(form(event("urn:x", subject=None, data=data))):
        assert "subject" not in members
        assert shown == {"reason": "HTTP 410 Gone"}


@pytest.mark.parametrize("source", SOURCES)
def test_we_ourselves_take_what_we_send(source):
    whole = structured(event(source))
    parts = binary(event(source))
    headers = {
        name.lower().encode(): value.encode("ascii") for name, value in headers_of(parts).items()
    }
    one = cloudevents.from_structured(whole.body)
    other = cloudevents.from_binary(headers, parts.body)
    assert one == other
    assert one["attributes"]["cloudevent"]["source"] == source


def test_the_structured_form_has_the_media_type_of_its_format():
    payload = structured(event("urn:x"))
    assert (payload.content_type, payload.headers) == ("application/cloudevents+json", "")


def test_headers_hold_printable_ascii_only():
    payload = binary(event(SOURCES[-1]))
    assert headers_of(payload).keys() == {
        "content-type",
        *(f"ce-{name}" for name in ("specversion", "id", "source", "type", "subject", "time")),
    }
    assert headers_of(payload)["ce-source"] == (
        "https://b%C3%BCcher.example/%E2%98%83%20%22x%22%20100%2525%0D%0Ax-more:%201"
    )


def test_times_end_in_z_with_and_without_a_fraction():
    for at in (AT, AT.replace(microsecond=0)):
        named = headers_of(binary(event("urn:x", occurred_at=at)))["ce-time"]
        assert named == json.loads(structured(event("urn:x", occurred_at=at)).body)["time"]
        assert named.endswith("Z")
