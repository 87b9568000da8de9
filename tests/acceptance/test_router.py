"""A router of the user's, through the real processes."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from standardwebhooks import Webhook

from tests.acceptance.conftest import PROJECT, until

ROUTER = """
    class ByHook:
        async def route(self, document, prediction, destinations):
            return [(document.attributes["hook"], f"the hook of a {prediction.category}")]
"""


@pytest.mark.timeout(120)
def test_a_router_may_send_to_a_url_that_nobody_registered(
    make_system, database_url, redis_url, receiver, tmp_path
):
    (tmp_path / "own_router.py").write_text(textwrap.dedent(ROUTER))
    system = make_system(
        database_url,
        redis_url,
        ROUTER="own_router:ByHook",
        PYTHONPATH=f"{tmp_path}:{PROJECT}",
    )
    system.start_web()
    system.start("worker")
    status, default = system.post(
        "/destinations", {"key": "default", "url": "https://unused.example", "enabled": False}
    )
    assert status == 201
    body = {"content": "The shuttle reached orbit.", "attributes": {"hook": receiver.url}}
    one = system.post("/documents", body)[1]["id"]
    assert until(lambda: receiver.received, 60), system.logs()
    headers, sent = receiver.received[0]
    lower = {name.lower(): value for name, value in headers.items()}
    Webhook(default["secret"]).verify(sent, lower)

    def delivered():
        found = system.get(f"/documents/{one}/deliveries")[1]
        return found if found["items"][0]["state"] == "delivered" else None

    found = until(delivered, 20)
    assert found["routes"] == 1
    assert found["items"][0]["destination_url"] == receiver.url
    assert found["items"][0]["reason"].startswith("the hook of a ")
    status, preview = system.post("/routes/preview", body)
    assert (status, [one["url"] for one in preview["routes"]]) == (200, [receiver.url])
    assert found["items"][0]["reason"] == preview["routes"][0]["reason"]
    nobody = {"content": "no hook"}
    other = system.post("/documents", nobody)[1]["id"]
    system.get_stored(other)

    def failed():
        found = system.get(f"/documents/{other}/deliveries")[1]
        return found if found["unplanned"] and found["unplanned"]["attempts"] else None

    found = until(failed, 20)
    assert "TypeError" in found["explanation"]
    assert system.get("/")[1]["counts"]["unplanned"] == 1


def test_a_worker_with_a_wrong_router_refuses_to_start(make_system, database_url, redis_url):
    system = make_system(database_url, redis_url, ROUTER="nowhere:Router")
    done = subprocess.run(
        [sys.executable, "-m", "app", "worker"],
        cwd=PROJECT,
        env=system.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "ROUTER=nowhere:Router cannot be imported" in done.stderr
