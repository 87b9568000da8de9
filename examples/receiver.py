"""A receiver of webhooks in FastAPI: verifies, drops repeats, answers.

::

    VERIFICATION_KEY=whsec_… uvicorn --factory examples.receiver:create_app --port 9000

``VERIFICATION_KEY`` is the destination's secret, or a public key of ``GET /webhook-keys``
(docs/signing.md). To use this elsewhere, copy ``app/domain/verifying.py`` with its three
neighbours (``errors``, ``signing``, ``webhook_keys``), or take a package of standardwebhooks.com.
"""

from __future__ import annotations

import json
import os
import time
from collections import OrderedDict
from typing import Any

from fastapi import FastAPI, Request, Response

from app.domain.errors import SignatureInvalid
from app.domain.verifying import parse_key, verify

REMEMBERED = 100_000
"""Ids of webhooks: a repeat comes within days, so a real receiver keeps them in its database."""


def create_app(key: str | None = None) -> FastAPI:
    """Return the receiver.

    Args:
        key: what to verify with; ``VERIFICATION_KEY`` when left out.
    """
    app = FastAPI()
    app.state.seen = OrderedDict()
    verification_key = parse_key(key or os.environ["VERIFICATION_KEY"])

    @app.post("/hook")
    async def receive(request: Request) -> Response:
        # The signature is over the bytes as they came: verify before parsing.
        body = await request.body()
        try:
            verify(verification_key, request.headers, body, now=time.time())
        except SignatureInvalid as error:
            return Response(str(error), 401)
        seen: OrderedDict[str, Any] = app.state.seen
        webhook_id = request.headers["webhook-id"]
        if webhook_id not in seen:
            seen[webhook_id] = json.loads(body)
            if len(seen) > REMEMBERED:
                seen.popitem(last=False)
            print(webhook_id, seen[webhook_id].get("type"), flush=True)  # noqa: T201  (what it is for)
        return Response(status_code=204)

    return app
