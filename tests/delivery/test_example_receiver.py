"""The example of a receiver, against real deliveries."""

from __future__ import annotations

import socket
import threading

import pytest
import uvicorn

from app.domain.destinations import DestinationInput
from app.domain.documents import DEFAULT_TENANT
from app.domain.signing import new_secret
from app.domain.vault import Vault
from app.services.destinations import create_destination
from app.services.webhook_keys import list_webhook_keys, rotate_webhook_key
from examples.receiver import create_app
from tests.delivery.conftest import wait_until


@pytest.fixture
def serve():
    running = []

    def start(key):
        app = create_app(key)
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        running.append((server, thread, listening))
        return app.state.seen, f"http://127.0.0.1:{listening.getsockname()[1]}/hook"

    yield start
    for server, thread, listening in running:
        server.should_exit = True
        thread.join(20)
        listening.close()


@pytest.mark.parametrize("version", ["v1", "v1a"])
def test_it_takes_what_is_signed_once_and_refuses_the_rest(yard, make_delivery, serve, version):
    delivery = make_delivery()
    secret = new_secret()
    (pair,) = list_webhook_keys(yard.engine, DEFAULT_TENANT, Vault())
    seen, url = serve(secret if version == "v1" else pair.public_key)
    given = DestinationInput(key="a", url=url, secret=secret, signatures=[version])
    destination = create_destination(yard.engine, DEFAULT_TENANT, given)
    document = yard.one(destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert yard.row(document).last_status == 204
    ((webhook_id, body),) = seen.items()
    assert webhook_id == f"msg_{document.id.hex}_{document.seq}"
    assert body["data"]["content"] == "some text"

    # Sent again, as when its answer had been lost.
    yard.execute(
        "UPDATE deliveries SET state = 'pending', attempts = 0, due_at = now(), ended_at = NULL"
    )
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert (yard.row(document).last_status, len(seen)) == (204, 1)

    # By another key.
    yard.execute("UPDATE destinations SET secret = :secret", secret=new_secret())
    rotate_webhook_key(yard.engine, DEFAULT_TENANT, Vault(), 0)
    refused = yard.one(destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert (yard.row(refused).last_status, len(seen)) == (401, 1)
