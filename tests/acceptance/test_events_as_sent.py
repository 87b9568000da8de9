"""Events through the real processes: what is delivered raw are the bytes that were sent."""

from __future__ import annotations

import json
import time

import psycopg
import pytest

from app.domain.verifying import parse_key, verify
from tests.acceptance.conftest import until

EVENT = """ {"b": 1.50,\t"a": "n\u00e4me \\u00e9 \\u0000 \\/ \u2028\U0001f600",\r
 "b": [1e2 , {}]}
""".encode()
ELEMENTS = [b'{"order":7}', b'{ "text" : "],[{\\"", "n":12345678901234567890123 }']
NAMED = {"specversion": "1.0", "source": "/s", "type": "t"}


def cloud_event(one: str, data: str) -> str:
    return json.dumps({**NAMED, "id": one})[:-1] + f', "data": {data} }}'


@pytest.mark.timeout(120)
def test_raw_webhooks_carry_the_bytes_that_were_sent(
    make_system, database_url, redis_url, receiver
):
    system = make_system(database_url, redis_url)
    system.start_web()
    system.start("worker")
    destination = {"key": "raw", "url": receiver.url, "body": "raw"}
    status, created = system.post("/destinations", destination)
    assert status == 201

    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert system.post("/v1/event", EVENT, **form) == (200, "OK")
    assert system.post("/v1/batch", b"[" + b" ,\n".join(ELEMENTS) + b"]", **form) == (200, "OK")
    events = [cloud_event("1", '"old"'), cloud_event("2", "[ 1.10 ]"), cloud_event("1", '"new"')]
    batch = {"Content-Type": "application/cloudevents-batch+json"}
    status, accepted = system.post("/documents", f"[{','.join(events)}]".encode(), **batch)
    assert (status, accepted["replaced"]) == (202, [0])

    expected = {EVENT.strip(), *ELEMENTS, b"[ 1.10 ]", b"new"}
    until(lambda: len(receiver.received) >= len(expected), 60)
    assert {body for _, body in receiver.received} == expected, system.logs()
    for headers, body in receiver.received:
        lowered = {name.lower(): value for name, value in headers.items()}
        verify(parse_key(created["secret"]), lowered, body, now=time.time())
        kind = "text/plain; charset=utf-8" if body == b"new" else "application/json"
        assert lowered["content-type"] == kind

    url = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT content, category FROM documents").fetchall()
    assert {content.encode() for content, _ in rows} == expected
    assert all(category for _, category in rows)
