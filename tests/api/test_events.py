"""Events and CloudEvents: any JSON object as a document, its bytes kept."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import textwrap
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import conversion
from cloudevents.v1.http import CloudEvent as OlderCloudEvent

from app.domain.errors import SettingsInvalid
from app.main import create_app
from app.settings import Settings
from tests.api.test_batches import queued_documents

PROJECT = Path(__file__).parents[2]
# As no serialiser would write it: what arrives must be these bytes.
EVENT = '{ "b":1.50,\t"a" : "n\u00e4me \\u00e9 \\u0000 \\/", "b": [1e2 , {}]}'


def post(web, path, body, headers=None):
    data = body if isinstance(body, bytes) else body.encode()
    return web.ask("POST", path, data, headers)


def test_an_event_is_a_document_whose_content_is_its_bytes(web):
    answer = post(web, "/v1/event", f"  {EVENT}\n")
    assert (answer.status, answer.json) == (200, "OK")
    (document,) = queued_documents(web)
    assert document["content"] == EVENT
    assert answer.headers["location"] == f"/documents/{document['id']}"


def test_curl_without_a_content_type_works(web):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert post(web, "/v1/event", '{"a": 1}', form).status == 200
    assert post(web, "/v1/batch", '[{"a": 1}]', form).status == 200


def test_a_batch_of_events_is_queued_whole_each_byte_for_byte(web):
    events = [EVENT, '{"x":[{"y":"],[{"}]}', "{}"]
    answer = post(web, "/v1/batch", "[ " + " ,\n".join(events) + "]")
    assert (answer.status, answer.json) == (200, "OK")
    assert [one["content"] for one in queued_documents(web)] == events
    found = web.ask("GET", answer.headers["location"])
    assert (found.status, found.json["accepted"]) == (200, 3)


BAD = {
    "nothing": (b"", ""),
    "an array": (b"[]", ""),
    "a string": (b'"OK"', ""),
    "null": (b"null", ""),
    "truncated": (b'{"a": "b', ""),
    "not a number": (b'{"a": NaN}', ""),
    "two": (b"{} {}", ""),
    "invalid UTF-8": (b'{"a": "\xff"}', ""),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), ""),
    "a raw NUL": (b'{"a": "\0"}', ""),
    "too deep": (b'{"a":' * 100_000, ""),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_object_is_refused_and_nothing_queued(serve, database_url, redis_url, case):
    web = serve(database_url=database_url, redis_url=redis_url)
    body, place = BAD[case]
    answer = post(web, "/v1/event", body)
    assert answer.status == 422, answer.body
    assert answer.json["errors"][0]["pointer"] == place
    answer = post(web, "/v1/batch", b"[{}," + body + b"]")
    assert answer.status == 422, answer.body
    assert web.queued() == {}


def test_events_that_are_too_large_or_too_many_are_refused(web):
    assert post(web, "/v1/event", b'{"a": "' + b"x" * 10_000 + b'"}').status == 413
    one = post(web, "/v1/batch", b'[{}, {"a": "' + b"x" * 10_000 + b'"}]')
    assert (one.status, one.json["errors"][0]["pointer"]) == (422, "/1")
    many = post(web, "/v1/batch", b"[" + b"{}," * 99_999 + b"{}]")
    assert (many.status, many.json["code"]) == (413, "batch_too_long")
    assert web.queued() == {}


@pytest.fixture
def model(tmp_path, monkeypatch):
    (tmp_path / "shop_events.py").write_text(
        textwrap.dedent(
            """
            from pydantic import BaseModel

            class Customer(BaseModel):
                name: str

            class Order(BaseModel, extra="forbid"):
                number: int
                lines: list[dict[str, int]]
                customer: int | Customer | None = None
                more: bool = False

            class NoModel:
                pass
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "shop_events:Order"
    sys.modules.pop("shop_events", None)


def test_a_model_of_ones_own_refuses_by_place_and_changes_nothing(
    serve, database_url, redis_url, model
):
    web = serve(database_url=database_url, redis_url=redis_url, event_model=model)
    good = '{"number": "7", "lines": [{"a": 1}], "more": true}'
    assert post(web, "/v1/event", good).status == 200
    assert queued_documents(web)[0]["content"] == good
    for wrong, places in (
        ('"lines": [{"a": 1}, {"b": "x"}]', {"/lines/1/b"}),
        ('"lines": [], "colour": 1', {"/colour"}),
        ('"lines": [], "customer": "me"', {"/customer"}),
        ('"lines": [], "customer": {}', {"/customer", "/customer/name"}),
    ):
        answer = post(web, "/v1/event", f'{{"number": 1, {wrong}}}')
        assert answer.status == 422
        assert {one["pointer"] for one in answer.json["errors"]} == places
    answer = post(web, "/v1/batch", f'[{good}, {{"lines": []}}]')
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/1/number")
    assert web.queued() == {"ingest": 1}


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("shop_events", "not of the form"),
        ("nowhere_at_all:Order", "cannot be imported"),
        ("shop_events:Nothing", "cannot be imported"),
        ("shop_events:NoModel", "not a subclass of pydantic"),
    ],
)
@pytest.mark.usefixtures("model")
def test_a_model_that_is_none_refuses_the_start(place, says):
    with pytest.raises(SettingsInvalid, match=says):
        create_app(Settings(event_model=place))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_serve_ends_with_a_sentence_instead_of_starting_without_the_model(processes):
    environment = {**os.environ, "EVENT_MODEL": "nowhere_at_all:Order"}
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--port", "0", "--web-concurrency", processes],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "EVENT_MODEL=nowhere_at_all:Order cannot be imported"
        " (ModuleNotFoundError: No module named 'nowhere_at_all').\n"
    )


# CloudEvents


def cloud_event(data, **attributes):
    named = {
        "id": "e-1",
        "source": "/shops/näher",
        "type": "com.example.order",
        "time": datetime(2026, 11, 21, 4, 5, 6, tzinfo=UTC),
        "subject": 'a "subject" with %',
        "tenantname": "acme",
        **attributes,
    }
    return CloudEvent(attributes=named, data=data)


def sent(web, message):
    body = message.body if isinstance(message.body, bytes) else message.body.encode()
    headers = {name: value.encode() for name, value in message.headers.items()}
    return web.ask("POST", "/documents", body, headers)


def test_structured_and_binary_events_of_the_reference_become_the_same_document(web):
    event = cloud_event({"order": 7, "text": "zwölf"}, datacontenttype="application/json")
    structured = sent(web, to_structured(event, JSONFormat()))
    binary = sent(web, to_binary(event, JSONFormat()))
    assert (structured.status, binary.status) == (202, 202), (structured.body, binary.body)
    first, second = queued_documents(web)
    assert (
        json.loads(first["content"])
        == json.loads(second["content"])
        == {
            "order": 7,
            "text": "zwölf",
        }
    )
    assert first["id"] == second["id"] == structured.json["id"]
    assert structured.headers["location"] == f"/documents/{first['id']}"
    assert first["attributes"] == second["attributes"]
    assert first["attributes"]["cloudevent"] == {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/shops/näher",
        "type": "com.example.order",
        "time": "2026-11-21T04:05:06Z",
        "subject": 'a "subject" with %',
        "tenantname": "acme",
        "datacontenttype": "application/json",
    }


def test_text_data_is_the_content(web):
    event = cloud_event("plain text", datacontenttype="text/plain")
    for message in (to_structured(event, JSONFormat()), to_binary(event, JSONFormat())):
        assert sent(web, message).status == 202
    assert [one["content"] for one in queued_documents(web)] == ["plain text"] * 2


@pytest.mark.parametrize("kind", ["application/json", "text/vnd.a+json; charset=utf-8"])
def test_json_data_is_kept_as_it_stands_and_a_string_is_what_it_says(web, kind):
    data = '{ "b":1.50,\t"n": 123456789012345678901234, "a" : "n\u00e4me \\u00e9", "b": [1e2 , {}]}'
    named = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    structured = json.dumps({**named, "datacontenttype": kind})[:-1]
    headers = {"Content-Type": kind} | {f"ce-{name}": value for name, value in named.items()}
    for content, sent_as in ((data, data), ("zw\u00f6lf", '"zw\\u00f6lf"')):
        encoded = base64.b64encode(sent_as.encode()).decode()
        for body in (
            f'{structured},"data": {sent_as} }}',
            f'{structured},"data_base64":"{encoded}"}}',
        ):
            kind_of_form = {"Content-Type": "application/cloudevents+json"}
            assert post(web, "/documents", body, kind_of_form).status == 202
        assert post(web, "/documents", sent_as, headers).status == 202
        documents = queued_documents(web)[-3:]
        assert [one["content"] for one in documents] == [content] * 3
        assert documents[0] == documents[1] == documents[2]


def test_a_batch_of_events_is_queued_whole_and_the_last_of_an_id_wins(web):
    events = [
        cloud_event({"n": 1}),
        cloud_event({"n": 2}, id="e-2"),
        cloud_event({"n": 3}),
        cloud_event(b"bytes", id="e-3", datacontenttype="text/plain"),
    ]
    body = b"[" + b",".join(to_structured(one, JSONFormat()).body for one in events) + b"]"
    kind = {"Content-Type": "application/cloudevents-batch+json; charset=utf-8"}
    answer = web.ask("POST", "/documents", body, kind)
    assert answer.status == 202, answer.body
    assert answer.json["replaced"] == [0]
    contents = [one["content"] for one in queued_documents(web)]
    assert [json.loads(one)["n"] for one in contents[:3]] == [1, 2, 3]
    assert contents[3] == "bytes"


def test_the_same_id_of_another_source_is_another_document(web):
    ids = {
        sent(web, to_structured(cloud_event("a", source=source), JSONFormat())).json["id"]
        for source in ("/a", "/b", "/a")
    }
    assert len(ids) == 2
    assert all(uuid.UUID(one).version == 5 for one in ids)


GOOD = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": "text"}


def changed(**fields):
    merged = {**GOOD, **fields}
    return json.dumps({name: value for name, value in merged.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"{", ""),
        (b"[]", ""),
        (changed(specversion="0.3"), "/specversion"),
        (changed(id=""), "/id"),
        (changed(source=...), "/source"),
        (changed(type=7), "/type"),
        (changed(data=...), "/data"),
        (changed(data=None), "/data"),
        (changed(data=""), "/data"),
        (changed(data=..., data_base64="%%%"), "/data_base64"),
        (changed(data=..., data_base64=7), "/data_base64"),
        (changed(data=..., data_base64=base64.b64encode(b"\xff").decode()), "/data_base64"),
        (changed(data_base64="YQ=="), "/data_base64"),
        (changed(data=..., data_base64="AA=="), "/data_base64"),
        (changed(data=..., data_base64="eyI=", datacontenttype="text/json"), "/data_base64"),
        (changed(data="a\0b"), "/data"),
        (changed(extension="a\0b"), "/extension"),
    ],
)
def test_what_is_no_event_is_refused_by_its_place(web, body, place):
    one = web.ask("POST", "/documents", body, {"Content-Type": "application/cloudevents+json"})
    assert (one.status, one.json["errors"][0]["pointer"]) == (422, place), one.body
    kind = {"Content-Type": "application/cloudevents-batch+json"}
    many = web.ask("POST", "/documents", b"[" + changed() + b"," + body + b"]", kind)
    assert many.status == 422, many.body
    assert web.queued() == {}


@pytest.mark.parametrize("form", ["cloudevents+xml", "cloudevents-batch+avro; charset=utf-8"])
def test_a_format_other_than_json_is_refused_by_its_name(web, form):
    answer = web.ask("POST", "/documents", changed(), {"Content-Type": f"application/{form}"})
    assert (answer.status, answer.json["code"]) == (415, "format_unsupported")
    assert f"'application/{form.partition(';')[0]}'" in answer.json["detail"]
    assert web.queued() == {}


def test_an_event_can_be_left_out_of_the_answer(web):
    headers = {"Content-Type": "Application/CloudEvents+JSON", "Prefer": "return=minimal"}
    answer = web.ask("POST", "/documents", changed(), headers)
    assert (answer.status, answer.headers["preference-applied"]) == (202, "return=minimal")
    assert answer.json.keys() == {"id", "attributes"}
    assert queued_documents(web)[0]["content"] == "text"


@pytest.mark.parametrize("data", [{"a": 1.5, "b": ["z\u00f6lf"]}, [1, 2], "a text"])
def test_events_of_the_references_older_interface_become_the_same_document(web, data):
    named = {"source": "/s", "type": "t", "id": "1", "datacontenttype": "application/json"}
    binary = conversion.to_binary(OlderCloudEvent(named, data))
    structured = conversion.to_structured(OlderCloudEvent(named, data))
    for headers, body in (binary, structured):
        assert web.ask("POST", "/documents", body, dict(headers)).status == 202
    first, second = queued_documents(web)
    assert first["id"] == second["id"]
    for document in (first, second):
        content = document["content"]
        assert (content if isinstance(data, str) else json.loads(content)) == data


def test_a_binary_event_without_its_headers_is_refused(web):
    headers = {"ce-specversion": "1.0", "ce-id": "1", "Content-Type": "text/plain"}
    answer = web.ask("POST", "/documents", b"text", headers)
    assert [one["pointer"] for one in answer.json["errors"]] == ["/source", "/type"]
    headers |= {"ce-source": "/s", "ce-type": "t"}
    assert web.ask("POST", "/documents", b"\xff", headers).status == 422
    assert web.ask("POST", "/documents", b"", headers).status == 422
    assert web.ask("POST", "/documents", b"text", headers | {"ce-x": "%ff"}).status == 422
    assert web.ask("POST", "/documents", b"a\0", headers).status == 422
    json_type = {"Content-Type": "application/json"}
    assert web.ask("POST", "/documents", b'{"a": 1', headers | json_type).status == 422
    assert web.queued() == {}
    assert web.ask("POST", "/documents", b"text", headers).status == 202
