"""Registers a local receiver as a destination for as long as somebody looks at it.

Its description says which process of which machine made it. One whose process was killed is found
by that and removed by the next one.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
import uuid
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.local.errors import InstanceRefused, InstanceSilent, StillRegistered
from app.local.processes import start_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.local.instance import Client

_MADE_BY = "python -m app, process {pid} on {machine}, started {stamp}"
_MADE_BY_PATTERN = re.compile(r"python -m app, process (\d+) on (\S+), started (.+)")
_PAGE = 500
_GONE = {HTTPStatus.NO_CONTENT, HTTPStatus.OK, HTTPStatus.NOT_FOUND}
_PAUSE_SECONDS = 0.5


@contextmanager
def registered(client: Client, **wanted: Any) -> Iterator[dict[str, Any]]:
    """Make a destination of these fields, and remove it at the end; gives what was made.

    Raises:
        InstanceRefused: the server does not want it.
        InstanceSilent: the server does not answer.
        StillRegistered: it could not be removed.
    """
    remove_leftovers(client)
    made = client.call("POST", "/destinations", wanted | {"description": _description()})
    try:
        yield made
    finally:
        _remove(client, made["id"], made["key"])


def remove_leftovers(client: Client) -> None:
    """Remove the destinations of processes of this machine that ended without doing so."""
    cursor = ""
    while True:
        page = client.call("GET", f"/destinations?limit={_PAGE}{cursor}")
        for one in page["items"]:
            if _is_leftover(one["description"] or ""):
                client.ask("DELETE", f"/destinations/{one['id']}")
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


def _is_leftover(description: str) -> bool:
    made_by = _MADE_BY_PATTERN.fullmatch(description)
    return bool(made_by and made_by[2] == _machine() and start_stamp(int(made_by[1])) != made_by[3])


def _description() -> str:
    pid = os.getpid()
    return _MADE_BY.format(pid=pid, machine=_machine(), stamp=start_stamp(pid))


def _machine() -> str:
    """Return what tells the processes of one system from another's, without telling its id."""
    try:
        system = Path("/etc/machine-id").read_text()
    except OSError:
        system = str(uuid.getnode())
    # A container may share the rest with its host, and sees other processes.
    with suppress(OSError):
        system += str(Path("/proc/self/ns/pid").stat().st_ino)
    name = re.sub(r"\s", "-", socket.gethostname())
    return f"{name}/{hashlib.sha256(system.encode()).hexdigest()[:8]}"


def _remove(client: Client, destination_id: str, key: str) -> None:
    path = f"/destinations/{destination_id}"
    try:
        status, answer = client.ask("DELETE", path)
    except InstanceSilent:
        # It may be restarting.
        time.sleep(_PAUSE_SECONDS)
        try:
            status, answer = client.ask("DELETE", path)
        except InstanceSilent as error:
            raise StillRegistered(key, str(error)) from None
    if status not in _GONE:
        raise InstanceRefused(f"DELETE {client.address}{path}", status, str(answer))
