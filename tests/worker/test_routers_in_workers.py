"""Routing behind the commit: the user's router, its failures, and who tries again."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import text

from app.domain.destinations import DestinationChanges, DestinationInput
from app.domain.documents import DEFAULT_TENANT
from app.domain.encryption import new_key
from app.domain.rotation import SecretRotation
from app.domain.routers import RouteTo
from app.domain.routing import plan_routes
from app.domain.signing import decode_secret
from app.domain.vault import Vault
from app.services import destinations
from app.services.rejected import retry_rejected
from app.storage import documents, unregistered
from app.storage.destinations import DestinationCache
from app.storage.engine import make_engine, transaction
from tests.acceptance.conftest import until
from tests.worker.test_worker_parts import FakeModel, chunk
from worker.ingest import Ingest, ingest
from worker.planning import Planning, Replanner
from worker.router_host import RouterHost, TableRouter


@pytest.fixture
def engine(database_url):
    made = make_engine(database_url, application_name="test", pool_size=8)
    yield made
    made.dispose()


@pytest.fixture
def make_parts(engine):
    """An ingest with a router; returns what it rang as well."""
    hosts = []

    def make(router, **options):
        rung = []
        cache = DestinationCache()
        host = RouterHost(router) if router else TableRouter()
        hosts.append(host)
        planning = Planning(
            engine=engine,
            destinations=cache,
            router=host,
            ring=lambda _, ids: rung.extend(ids),
            **options,
        )
        parts = Ingest(
            engine=engine,
            model=FakeModel(),
            isolated=None,
            destinations=cache,
            ring=lambda _, ids: rung.extend(ids),
            stopping=threading.Event(),
            planning=planning if router else None,
        )
        return parts, planning, rung

    yield make
    for host in hosts:
        host.close()


def add_destination(engine, key, **fields):
    given = DestinationInput(key=key, url=f"https://{key}.example/hook", **fields)
    return destinations.create_destination(engine, DEFAULT_TENANT, given)


def rows(engine, sql, **values):
    with transaction(engine) as connection:
        return [tuple(row) for row in connection.execute(text(sql), values)]


def routes(engine):
    return rows(
        engine,
        "SELECT s.url, d.reason FROM deliveries d JOIN destinations s ON s.id = d.destination_id"
        " WHERE d.state = 'pending' ORDER BY s.url",
    )


def make_due(engine):
    with transaction(engine) as connection:
        connection.execute(text("UPDATE unplanned_documents SET retry_at = now()"))


class Sync:
    def route(self, document, prediction, destinations):
        assert document.attributes == {"to": "b"}
        return [
            RouteTo(one, f"{prediction.category} for {one.key}")
            for one in destinations
            if one.key == document.attributes["to"]
        ]


class Async(Sync):
    async def route(self, document, prediction, destinations):
        await asyncio.sleep(0)
        return super().route(document, prediction, destinations)


@pytest.mark.parametrize("router", [Sync(), Async()])
def test_a_router_chooses_instead_of_the_table(engine, make_parts, router):
    add_destination(engine, "a")
    b = add_destination(engine, "b")
    add_destination(engine, "off", enabled=False)
    parts, _, rung = make_parts(router)
    ingest(parts, [chunk({"content": "x", "id": str(uuid.uuid4()), "attributes": {"to": "b"}})])
    assert routes(engine) == [("https://b.example/hook", "c for b")]
    assert rung == [b.id]
    assert rows(engine, "SELECT * FROM unplanned_documents") == []
    planned = "SELECT sum(amount) FROM counter_deltas WHERE name = 'deliveries.planned'"
    assert rows(engine, planned) == [(1,)]


class Broken:
    """Fails on some documents until it is mended."""

    mended = False

    def route(self, document, prediction, destinations):
        if document.content == "bad" and not self.mended:
            raise ValueError("no\0t now")
        return plan_routes(document, prediction, destinations)


def test_a_document_that_the_router_fails_on_is_kept_and_routed_later(
    engine, make_parts, monkeypatch
):
    monkeypatch.setattr("app.storage.unplanned.FIRST_RETRY_SECONDS", 600)
    add_destination(engine, "a")
    router = Broken()
    parts, planning, rung = make_parts(router)
    ingest(parts, [chunk("good", "bad")])
    assert rows(engine, "SELECT content FROM documents ORDER BY 1") == [("bad",), ("good",)]
    assert len(routes(engine)) == 1
    mark = "SELECT attempts, error, retry_at > now() FROM unplanned_documents"
    assert rows(engine, mark) == [(1, "The router failed: ValueError: no\ufffdt now.", True)]
    replanner = Replanner(planning)
    replanner.look()
    assert len(rows(engine, mark)) == 1
    make_due(engine)
    replanner.look()
    assert rows(engine, mark) == [(2, "The router failed: ValueError: no\ufffdt now.", True)]
    router.mended = True
    make_due(engine)
    rung.clear()
    replanner.look()
    assert rows(engine, mark) == []
    assert len(routes(engine)) == 2
    assert len(rung) == 1


def test_a_mark_whose_process_died_is_taken_up_by_another(engine, make_parts):
    add_destination(engine, "a")
    parts, planning, _ = make_parts(Broken())

    class Dies:
        def ask(self, *_):
            raise KeyboardInterrupt

    dying = replace(parts, planning=replace(planning, router=Dies()))
    with pytest.raises(KeyboardInterrupt):
        ingest(dying, [chunk("good")])
    assert routes(engine) == []
    make_due(engine)
    replanner = Replanner(planning, every_seconds=0.05)
    replanner.start()
    assert until(lambda: len(routes(engine)) == 1, 20)
    replanner.stop()


def test_a_document_that_kills_its_router_is_set_aside_and_the_others_go_through(
    engine, make_parts
):
    """Each death leaves what was taken unanswered; the next one who takes it asks it alone."""
    asked, deaths = [], []

    class Died(BaseException):
        pass

    class Deadly:
        def route(self, document, *_):
            asked.append(document.content)
            if document.content == "kills":
                deaths.append(document.content)
                raise Died
            return []

    def lifetime(work):
        with suppress(Died):
            work()
        make_due(engine)

    parts, planning, _ = make_parts(Deadly())
    given = chunk("kills", "one", "two")
    lifetime(lambda: ingest(parts, [given]))
    replanner = Replanner(planning)
    for _ in range(4):
        lifetime(replanner.look)
    assert len(deaths) == 3
    assert {"one", "two"} < set(asked)
    assert rows(engine, "SELECT count(*) FROM unplanned_documents") == [(0,)]
    (row,) = rows(engine, "SELECT document_id, stage, reason, body FROM rejected_documents")
    assert (str(row[0]), row[1]) == (given.documents[0]["id"], "router")
    assert row[2] == "the process that routed it died or hung, three times in a row"
    assert json.loads(row[3]) == given.documents[0]
    # It is stored all the same, and can be routed once the router is mended.
    assert rows(engine, "SELECT count(*) FROM documents") == [(3,)]
    seq = rows(engine, "SELECT seq FROM rejected_documents")[0][0]
    assert asyncio.run(retry_rejected(engine, None, "docyard", DEFAULT_TENANT, seq)) is None
    assert rows(engine, "SELECT seq, takes FROM unplanned_documents") == [(seq, 0)]
    assert rows(engine, "SELECT count(*) FROM rejected_documents") == [(0,)]


def test_a_failure_of_the_router_is_an_answer_however_often(engine, make_parts):
    class Failing:
        def route(self, *_):
            raise LookupError

    parts, planning, _ = make_parts(Failing())
    ingest(parts, [chunk("text")])
    for _ in range(4):
        make_due(engine)
        Replanner(planning).look()
    assert rows(engine, "SELECT attempts, takes FROM unplanned_documents") == [(5, 0)]
    assert rows(engine, "SELECT count(*) FROM rejected_documents") == [(0,)]


def test_two_who_plan_the_same_document_plan_it_once(engine, make_parts):
    add_destination(engine, "a")
    barrier = threading.Barrier(2, timeout=20)

    class Together:
        def route(self, *_):
            barrier.wait()
            return ["a"]

    parts, planning, _ = make_parts(Together())
    worker = threading.Thread(target=ingest, args=(parts, [chunk("good")]))
    worker.start()
    assert until(lambda: rows(engine, "SELECT 1 FROM unplanned_documents") == [(1,)], 20)
    make_due(engine)
    Replanner(planning).look()
    worker.join()
    assert len(routes(engine)) == 1
    assert rows(engine, "SELECT 1 FROM unplanned_documents") == []


@pytest.mark.parametrize("by_router", [True, False])
def test_a_version_that_was_replaced_meanwhile_gets_no_deliveries(engine, make_parts, by_router):
    """Also where a process without the router replaced it, as in the middle of a deploy."""
    add_destination(engine, "a")
    one = str(uuid.uuid4())
    older = chunk({"id": one, "content": "first", "version": 1})
    newer = replace(chunk({"id": one, "content": "second", "version": 2}), seq=older.seq + 1)
    nested = []

    class Slow:
        def route(self, document, *_):
            if document.version == 1 and not nested:
                nested.append(True)
                ingest(parts if by_router else make_parts(None)[0], [newer])
            return ["a"]

    parts, planning, _ = make_parts(Slow())
    ingest(parts, [older])
    assert rows(engine, "SELECT version, state FROM deliveries") == [(2, "pending")]
    make_due(engine)
    Replanner(planning).look()
    assert rows(engine, "SELECT 1 FROM unplanned_documents") == []


def test_a_document_deleted_meanwhile_leaves_no_mark(engine, make_parts):
    router = Broken()
    parts, planning, _ = make_parts(router)
    ingest(parts, [chunk("bad")])
    ((one,),) = rows(engine, "SELECT id FROM documents")
    with transaction(engine) as connection:
        documents.delete(connection, DEFAULT_TENANT, one)
    make_due(engine)
    router.mended = True
    Replanner(planning).look()
    assert rows(engine, "SELECT 1 FROM unplanned_documents") == []


class ToUrls:
    def __init__(self, *urls):
        self.urls = urls

    def route(self, *_):
        return [(url, "by hand") for url in self.urls]


def test_plain_urls_get_destinations_under_the_default_one(engine, make_parts):
    default = add_destination(engine, "default", timeout_seconds=7, enabled=False)
    parts, _, rung = make_parts(ToUrls("https://one.example/x", "https://two.example/"))
    ingest(parts, [chunk("a"), chunk("b")])
    children = rows(
        engine,
        "SELECT url, secret, timeout_seconds, enabled, parent_id, id FROM destinations"
        " WHERE parent_id IS NOT NULL ORDER BY url",
    )
    assert [one[:5] for one in children] == [
        (url, default.secret, 7.0, True, default.id)
        for url in ("https://one.example/x", "https://two.example/")
    ]
    assert sorted(rung) == sorted(one[5] for one in children)
    assert len(routes(engine)) == 4
    # They take nothing by themselves, and are listed only where they are asked for.
    ingest(make_parts(None)[0], [chunk("c")])
    assert len(routes(engine)) == 4
    listed, _ = destinations.list_destinations(engine, DEFAULT_TENANT, limit=10, after=None)
    assert [one.key for one in listed] == ["default"]
    below, _ = destinations.list_destinations(
        engine, DEFAULT_TENANT, limit=10, after=None, parent_id=default.id
    )
    assert len(below) == 2
    destinations.change_destination(
        engine, DEFAULT_TENANT, default.id, DestinationChanges(timeout_seconds=3)
    )
    timeouts = rows(engine, "SELECT timeout_seconds FROM destinations")
    assert timeouts == [(3.0,)] * 3
    destinations.delete_destination(engine, DEFAULT_TENANT, default.id)
    assert rows(engine, "SELECT 1 FROM destinations WHERE deleted_at IS NULL") == []


def test_a_default_destination_is_made_where_there_is_none(engine, make_parts):
    parts, _, _ = make_parts(ToUrls("https://one.example/x"))
    ingest(parts, [chunk("a"), chunk("b")])
    assert rows(
        engine, "SELECT key, enabled, parent_id IS NULL FROM destinations WHERE key = 'default'"
    ) == [("default", False, True)]
    assert rows(engine, "SELECT count(DISTINCT secret), count(*) FROM destinations") == [(1, 2)]


def test_a_default_destination_that_is_made_has_its_secret_encrypted(engine, make_parts):
    vault = Vault([new_key()])
    parts, _, _ = make_parts(ToUrls("https://one.example/x"), seal=vault.seal_if_able)
    ingest(parts, [chunk("a")])
    ((secret,),) = rows(engine, "SELECT DISTINCT secret FROM destinations")
    decode_secret(vault.open(secret))
    assert vault.open(secret) != secret


def test_urls_are_signed_as_the_default_one_and_get_none_of_its_credentials(engine, make_parts):
    vault = Vault([new_key()])
    given = DestinationInput(
        key="default",
        url="https://default.example/hook",
        headers={"X-A": "1"},
        auth={"type": "bearer", "token": "t"},
        signatures=["v1a", "v1"],
    )
    default = destinations.create_destination(engine, DEFAULT_TENANT, given, vault)
    parts, _, _ = make_parts(ToUrls("https://one.example/x"))
    ingest(parts, [chunk("a")])
    both = (
        "SELECT secret, old_secrets, signatures, sealed_headers, sealed_auth, auth_type,"
        " header_names FROM destinations ORDER BY parent_id NULLS FIRST"
    )
    for _ in range(2):
        parent, child = rows(engine, both)
        assert child[:3] == parent[:3]
        assert child[3:] == (None, None, None, [])
        assert None not in parent
        destinations.rotate_secret(engine, DEFAULT_TENANT, default.id, SecretRotation(), vault)
    assert vault.open(child[1][0]["secret"]) == default.secret


def test_too_many_urls_hold_up_only_the_documents_that_name_them(engine, make_parts, monkeypatch):
    monkeypatch.setattr(unregistered, "MOST_URLS", 1)
    add_destination(engine, "a")

    class Either:
        def route(self, document, *_):
            return ["a"] if document.content == "fine" else [f"https://{document.content}.example"]

    parts, _, _ = make_parts(Either())
    ingest(parts, [chunk("fine", "one", "two")])
    assert [url for url, _ in routes(engine)] == ["https://a.example/hook"]
    errors = rows(engine, "SELECT DISTINCT error FROM unplanned_documents")
    assert len(errors) == 1
    assert "more than 1 different URLs" in errors[0][0]


def test_a_url_that_said_it_is_gone_gets_nothing_more(engine, make_parts):
    parts, _, _ = make_parts(ToUrls("https://one.example/x"))
    ingest(parts, [chunk("a")])
    with transaction(engine) as connection:
        connection.execute(text("UPDATE destinations SET enabled = false"))
    ingest(parts, [chunk("b")])
    assert len(routes(engine)) == 1
    assert rows(engine, "SELECT 1 FROM unplanned_documents") == []


def test_a_document_that_the_table_cannot_read_is_kept(engine, make_parts):
    add_destination(engine, "a")
    parts, planning, _ = make_parts(None)
    ingest(parts, [chunk("good", {"id": str(uuid.uuid4()), "content": "odd", "topics": 5})])
    assert len(rows(engine, "SELECT 1 FROM documents")) == 2
    assert len(routes(engine)) == 1
    assert rows(engine, "SELECT attempts FROM unplanned_documents") == [(0,)]
    make_due(engine)
    Replanner(planning).look()
    ((error,),) = rows(engine, "SELECT error FROM unplanned_documents")
    assert "TypeError" in error
