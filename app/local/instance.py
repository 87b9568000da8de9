"""The running instance as the other commands see it: where it is, and how to talk to it."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from app.local.errors import InstanceRefused, InstanceSilent, NotRunning
from app.local.processes import start_stamp

if TYPE_CHECKING:
    from app.local.folder import DataFolder

_STATE = "instance.json"
_OK_BELOW = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What the launcher notes for the other commands.

    Attributes:
        address: of the web process, such as ``http://127.0.0.1:8000``.
        database: the private server's URL; None when DATABASE_URL named another.
        queue: likewise for Valkey.
        pid: the launcher's process id.
        stamp: when the launcher started; see ``app.local.processes``.
    """

    address: str
    database: str | None
    queue: str | None
    pid: int
    stamp: str


def note_instance(folder: DataFolder, instance: Instance) -> None:
    """Write down where the instance can be reached."""
    unfinished = folder.run.path / f"{_STATE}.new"
    unfinished.write_text(json.dumps(asdict(instance)))
    unfinished.replace(folder.run.path / _STATE)


def forget_instance(folder: DataFolder) -> None:
    """Take the note away."""
    (folder.run.path / _STATE).unlink(missing_ok=True)


def running_instance(folder: DataFolder) -> Instance:
    """Return the instance that is up in a folder.

    Raises:
        NotRunning: there is none, or its launcher died.
    """
    try:
        instance = Instance(**json.loads((folder.run.path / _STATE).read_text()))
    except (OSError, ValueError, TypeError):
        raise NotRunning(folder.path) from None
    if start_stamp(instance.pid) != instance.stamp:
        raise NotRunning(folder.path)
    return instance


class Client:
    """A small HTTP client for the commands: JSON in, JSON out, no dependency.

    Args:
        address: of the web process.
        api_key: sent as the bearer token.
        timeout: of one request, in seconds.
        elsewhere: whether it is a server that somebody else runs, perhaps behind a proxy.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        elsewhere: bool = False,
    ) -> None:
        self.address = address.rstrip("/")
        self._elsewhere = elsewhere
        # A proxy of the environment has no business between a command and its own machine.
        proxies = urllib.request.ProxyHandler(None if elsewhere else {})
        self._opener = urllib.request.build_opener(proxies, _StayHere)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout = timeout

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the decoded answer.

        Raises:
            InstanceRefused: it answered something other than 2xx.
            InstanceSilent: it did not answer.
        """
        status, answer = self.ask(method, path, body)
        if status >= _OK_BELOW:
            told = (
                answer.get("detail") or answer.get("title") if isinstance(answer, dict) else answer
            )
            raise InstanceRefused(f"{method} {self.address}{path}", status, str(told or ""))
        return answer

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request and return status and decoded answer, whatever the status is.

        Raises:
            InstanceSilent: it did not answer.
        """
        request = urllib.request.Request(  # noqa: S310 - the instance's own http address
            self.address + path,
            method=method,
            headers=self._headers,
            data=None if body is None else json.dumps(body).encode(),
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return response.status, _decoded(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decoded(error.read())
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error)
            raise InstanceSilent(self.address, reason, elsewhere=self._elsewhere) from error


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key in the headers is for one server."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
