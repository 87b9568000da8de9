"""Where the web process is to listen: whether it can, and how to reach it from here."""

from __future__ import annotations

import errno
import socket

from app.local.errors import AddressUnusable, PortBusy

_TRIES = 100


def free_address(host: str, port: int) -> int:
    """Return the port to listen on: ``port``, or any free one for 0.

    Raises:
        PortBusy: somebody listens there; names a free one.
        AddressUnusable: the host is not this machine's, or the port is a privileged one.
    """
    try:
        return _bind(host, port)
    except UnicodeError as error:
        reason = "that is no name of a host"
        raise AddressUnusable(host, port, reason) from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise AddressUnusable(host, port, error.strerror or str(error)) from error
        raise PortBusy(host, port, _next_free(host, port)) from error


def _next_free(host: str, port: int) -> int:
    for candidate in range(port + 1, min(port + _TRIES, 65_535)):
        try:
            return _bind(host, candidate)
        except OSError:
            continue
    return _bind(host, 0)


def _bind(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        # As the server itself does: connections that linger in TIME_WAIT do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        return int(probe.getsockname()[1])


def local_url(host: str, port: int) -> str:
    """Return how this machine reaches a server that listens on ``host``."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - a comparison
    if ":" in reachable and not reachable.startswith("["):
        reachable = f"[{reachable}]"
    return f"http://{reachable}:{port}"
