"""Registers a local receiver as a destination for as long as somebody looks at it."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from app.local.errors import InstanceRefused, InstanceSilent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.local.instance import Client


@contextmanager
def registered(client: Client, *, key: str, url: str, secret: str) -> Iterator[None]:
    """Make a destination, and remove it at the end.

    Raises:
        InstanceRefused: the instance does not want it.
        InstanceSilent: the instance does not answer.
    """
    wanted = {"key": key, "url": url, "secret": secret, "description": "python -m app"}
    made = client.call("POST", "/destinations", wanted)
    try:
        yield
    finally:
        # The instance may be gone by now, and somebody else may have removed it.
        with suppress(InstanceSilent):
            status, answer = client.ask("DELETE", f"/destinations/{made['id']}")
            if status not in {HTTPStatus.NO_CONTENT, HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
                raise InstanceRefused(f"DELETE /destinations/{made['id']}", status, str(answer))
