"""Whatever is asked of the API, it answers; nobody dies of what was accepted."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import children, until
from tests.acceptance.conftest import make_system as make_system  # noqa: PLC0414  (a fixture)
from tests.acceptance.conftest import receiver as receiver  # noqa: PLC0414  (likewise)
from tests.fuzz.requests_made_up import MadeUp

DOCUMENTS = 10


def things_that_exist(system, receiver):
    """Make some of each kind; return their ids by the names that paths have for them."""
    destinations = []
    for key in ("a", "b", "c"):
        status, made = system.post("/destinations", {"key": key, "url": receiver.url})
        assert status == 201
        destinations.append(made["id"])
    documents = [
        system.post("/documents", {"content": f"text {n}"})[1]["id"] for n in range(DOCUMENTS)
    ]
    for one in documents:
        stored = f"/documents/{one}"
        # The worker is still starting.
        assert until(lambda at=stored: system.get(at, Prefer="wait=20")[0] == 200, 60)
    wanted = len(destinations) * DOCUMENTS
    assert until(lambda: len(receiver.received) >= wanted, 60), system.logs()
    found = system.get("/deliveries?limit=50")[1]["items"]
    return {
        "url": [receiver.url],
        "destination_id": destinations,
        "document_id": documents,
        "delivery_id": [one["id"] for one in found],
    }


@pytest.mark.timeout(3600)
def test_no_request_meets_an_internal_error(
    make_system, database_url, redis_url, receiver, fuzz, request
):
    system = make_system(database_url, redis_url, DESTINATION_ALLOW_CIDRS="127.0.0.0/8")
    system.start_web()
    worker = system.start("worker")
    made_up = MadeUp(system.url, things_that_exist(system, receiver))
    started = children(worker.pid)
    made_up.run(fuzz.cases, fuzz.seed)
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        answered = dict(sorted(made_up.statuses.items()))
        print(f"\nseed {fuzz.seed}, {made_up.statuses.total()} requests: {answered}")  # noqa: T201  (asked for)
    assert made_up.faults == []
    assert made_up.statuses.total() >= fuzz.cases
    assert system.get("/healthz")[0] == 200
    assert children(worker.pid) == started
