"""``python -m app.cli.web_child FD``: one web process on a socket that is open already."""

from __future__ import annotations

import socket
import sys

from app.domain.errors import DocyardError
from app.logs import configure_logging
from app.settings import load_settings


def main(descriptor: int) -> int:
    """Serve until SIGTERM, or until the supervisor is gone; return the exit code."""
    from app.cli.web_server import serve_on  # noqa: PLC0415  (slow; a wrong setting is found first)

    try:
        settings = load_settings()
    except DocyardError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    configure_logging(settings)
    return serve_on(settings, socket.socket(fileno=descriptor))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
