"""``listen``: a receiver for webhooks on this machine that shows and verifies what arrives."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import secrets
import signal
import sys
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

import typer

from app.cli import listen_options as options
from app.domain.signing import SECRET_PREFIX, new_secret
from app.domain.verifying import parse_key
from app.local.display import best_style, display
from app.local.errors import NotRunning
from app.local.folder import folder_from
from app.local.instance import Client, running_instance

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.local.receiver import Receiver, Webhook

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Registration:
    """Where to register, and what.

    Attributes:
        public_url: how the server reaches the receiver; None: as this machine does.
        fields: of the destination, but for its URL.
        exported: a key that was made up, to show; None when the user gave one.
    """

    client: Client
    public_url: str | None
    fields: dict[str, Any]
    exported: str | None


@dataclass(kw_only=True)
class _Session:
    """What is received until it ends.

    Attributes:
        left: how many webhooks to go; None: no end.
        notes: where to tell what is not a webhook.
    """

    show: Callable[[Webhook], None]
    left: int | None
    notes: TextIO
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def received(self, webhook: Webhook) -> None:
        """Show a webhook, and end when it was the last."""
        if self.stopped.is_set():
            return
        try:
            self.show(webhook)
        except OSError:
            # Whoever read has gone, as in `listen | head`: nothing more can be said there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.stopped.set()
        if self.left is not None and webhook.fault is None:
            self.left -= 1
            if self.left == 0:
                self.stopped.set()

    def note(self, line: str) -> None:
        """Tell what goes on."""
        with contextlib.suppress(OSError):
            print(line, file=self.notes, flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """What ``app.local.receiver.Conduct`` is made of, once aiohttp is there."""

    forward_to: str | None
    status: int
    share: float
    delay_seconds: float


def listen(  # noqa: PLR0913  (each is an option)
    port: options.Port = 9000,
    host: options.Host = "127.0.0.1",
    secret: options.VerificationKey = None,
    count: options.Count = None,
    *,
    as_json: options.AsJson = False,
    full: options.Full = False,
    forward_to: options.ForwardTo = None,
    fail_rate: options.FailRate = None,
    status: options.Status = None,
    delay: options.Delay = "0s",  # type: ignore[assignment]  # read like one that is given
    register: options.Register = True,
    server: options.Server = None,
    api_key: options.ApiKey = None,
    public_url: options.PublicUrl = None,
    key: options.Key = None,
    topics: options.Topics = None,
    categories: options.Categories = None,
    events: options.Events = None,
    filter_: options.Filter = None,
    body: options.Body = None,
) -> None:
    """Receive webhooks on this machine, verify their signatures and show them.

    Registers itself as a destination and removes itself at the end (Ctrl-C).
    """
    _check(secret)
    registration = None
    if register:
        client = _client(server, api_key, public_url)
        exported = None if secret else new_secret()
        secret = secret or exported
        chosen = {
            "topics": topics,
            "categories": categories,
            "events": events,
            "filter": filter_,
            "body": body,
        }
        fields: dict[str, Any] = {name: value for name, value in chosen.items() if value}
        registration = _Registration(
            client=client,
            public_url=public_url,
            fields=fields | {"key": key or f"listen-{secrets.token_hex(4)}"} | _signed(secret),
            exported=exported,
        )
    answers = _Answers(
        forward_to=forward_to,
        status=status or HTTPStatus.SERVICE_UNAVAILABLE,
        share=fail_rate if fail_rate is not None else float(status is not None),
        delay_seconds=delay,
    )
    session = _Session(
        show=display("json" if as_json else best_style(), full=full),
        left=count,
        notes=sys.stderr if as_json else sys.stdout,
    )
    asyncio.run(_listen(session, (host, port), secret, answers, registration))


def _check(secret: str | None) -> None:
    if secret is not None:
        try:
            parse_key(secret)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--secret") from error


def _signed(secret: str | None) -> dict[str, Any]:
    """Return the fields that have a destination signed so that this key verifies it."""
    if secret and secret.strip().startswith(SECRET_PREFIX):
        return {"secret": secret.strip()}
    return {"signatures": ["v1a"]}


def _client(server: str | None, api_key: str | None, public_url: str | None) -> Client:
    if server is None:
        folder = folder_from(os.environ)
        try:
            return Client(running_instance(folder).address, api_key=api_key)
        except NotRunning as error:
            step = "Or name a server with --server, or receive for none with --no-register."
            raise NotRunning(folder.path, otherwise=step) from error
    if public_url is None and not _is_this_machine(urlsplit(server).hostname or ""):
        message = (
            f"{server} cannot reach 127.0.0.1 of this machine. Open a tunnel to this receiver"
            " and give its address (docs/listen.md has examples)."
        )
        raise typer.BadParameter(message, param_hint="--public-url")
    return Client(server, api_key=api_key, elsewhere=True)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _listen(
    session: _Session,
    place: tuple[str, int],
    secret: str | None,
    answers: _Answers,
    registration: _Registration | None,
) -> None:
    from app.local.receiver import Conduct, Receiver  # noqa: PLC0415  (aiohttp, only to listen)
    from app.local.relay import Relay  # noqa: PLC0415  (likewise)

    for number in _ENDS:
        asyncio.get_running_loop().add_signal_handler(number, session.stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        relay = None
        if answers.forward_to is not None:
            relay = await stack.enter_async_context(Relay(answers.forward_to))
        conduct = Conduct(
            status=answers.status,
            share=answers.share,
            delay_seconds=answers.delay_seconds,
            relay=relay,
        )
        host, port = place
        receiver = await stack.enter_async_context(
            Receiver(secret, session.received, host=host, port=port, conduct=conduct)
        )
        await _stay(session, receiver, secret, registration)


async def _stay(
    session: _Session, receiver: Receiver, secret: str | None, registration: _Registration | None
) -> None:
    from app.local.registration import registered  # noqa: PLC0415  (only where it is asked for)

    with contextlib.ExitStack() as stack:
        if registration is not None:
            client, fields = registration.client, registration.fields
            url = registration.public_url or receiver.url
            # On a thread: the receiver answers already, and signals wait for the end of it.
            await asyncio.to_thread(stack.enter_context, registered(client, url=url, **fields))
            session.note(f"Registered as the destination {fields['key']} of {client.address}.")
            if registration.exported:
                session.note(f"export VERIFICATION_KEY={registration.exported}")
        how = "verifying signatures" if secret else "NOT verifying: no --secret, no --register"
        session.note(f"Listening on {receiver.url}, {how}. Ctrl-C ends it.")
        await session.stopped.wait()
        await asyncio.to_thread(stack.close)
        if registration is not None:
            session.note(f"Removed the destination {registration.fields['key']}.")
