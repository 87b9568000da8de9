"""Shows webhooks: for people in a terminal, as plain lines, or as lines of JSON for programs."""

from __future__ import annotations

import base64
import json
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.local.receiver import Webhook

WIDTH = 60
INDENT = "    "
_MULTIPLE_CHOICES = HTTPStatus.MULTIPLE_CHOICES

Style = Literal["json", "plain", "terminal"]


def display(style: Style, *, full: bool = False) -> Callable[[Webhook], None]:
    """Return what prints a webhook to standard output.

    Args:
        style: ``terminal`` has colours.
        full: headers and body as well; JSON always has them.
    """
    if style == "json":
        return lambda webhook: print(json.dumps(as_json(webhook)), flush=True)  # noqa: T201
    if style == "terminal":
        return _in_colour(full=full)
    return lambda webhook: print("\n".join(_lines(webhook, full=full)), flush=True)  # noqa: T201


def best_style() -> Style:
    """Return ``terminal`` when standard output is one."""
    return "terminal" if sys.stdout.isatty() else "plain"


def as_json(webhook: Webhook) -> dict[str, Any]:
    """Return all that is known of a webhook, in JSON's types."""
    relayed = webhook.relayed
    return {
        "received_at": webhook.received_at.isoformat(),
        "webhook_id": webhook.webhook_id,
        "repeated": webhook.repeated,
        "verified": webhook.verified,
        "fault": webhook.fault,
        "status": webhook.status,
        "forwarded": relayed
        and {
            "url": relayed.url,
            "milliseconds": round(relayed.seconds * 1000, 3),
            "fault": relayed.fault,
        },
        "method": webhook.method,
        "path": webhook.path,
        "headers": [list(header) for header in webhook.headers],
        **_body(webhook),
    }


def summary(data: dict[str, Any]) -> str:
    """Return a document's category, confidence and beginning as one line."""
    confidence = data.get("confidence")
    shown = f"{confidence:4.0%}" if isinstance(confidence, float) else "   -"
    content = _cut(str(data.get("content", "")))
    return printable(f"{data.get('category') or 'unclassified':<26} {shown}  {content}")


def printable(text: str) -> str:
    """Replace what a terminal might obey: what arrives is written by strangers."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text)


def _headline(webhook: Webhook) -> str:
    time = f"{webhook.received_at.astimezone():%H:%M:%S}"
    if webhook.fault:
        return f"{time}  REFUSED  {webhook.fault}"
    notes = []
    if webhook.repeated:
        notes.append("again")
    if webhook.relayed and webhook.relayed.fault:
        notes.append(f"not forwarded: {printable(webhook.relayed.fault)}")
    elif webhook.relayed:
        took = webhook.relayed.seconds * 1000
        notes.append(f"forwarded: {webhook.status} after {took:.0f} ms")
    elif webhook.status >= _MULTIPLE_CHOICES:
        notes.append(f"answered {webhook.status}")
    return f"{time}  {_subject(webhook)}" + (f"  ({', '.join(notes)})" if notes else "")


def _subject(webhook: Webhook) -> str:
    data = webhook.data
    if "content" in data or "category" in data:
        return summary(data)
    body = webhook.parsed
    kind = body.get("type") if data and isinstance(body, dict) else None
    label = str(kind or webhook.header("content-type").partition(";")[0] or webhook.method)
    text = json.dumps(data, ensure_ascii=False) if data else webhook.body.decode(errors="replace")
    return printable(f"{label:<26}       {_cut(text)}")


def _lines(webhook: Webhook, *, full: bool) -> list[str]:
    lines = [_headline(webhook)]
    if full:
        lines += [f"{INDENT}{printable(line)}" for line in _head(webhook)]
        lines += ["", *(f"{INDENT}{printable(line)}" for line in _text(webhook).splitlines()), ""]
    return lines


def _head(webhook: Webhook) -> list[str]:
    headers = [f"{name}: {value}" for name, value in webhook.headers]
    return [f"{webhook.method} {webhook.path}", *headers]


def _text(webhook: Webhook) -> str:
    body = webhook.parsed
    if body is not None:
        return json.dumps(body, indent=2, ensure_ascii=False)
    try:
        return webhook.body.decode()
    except UnicodeDecodeError:
        return f"({len(webhook.body)} bytes that are not text)"


def _body(webhook: Webhook) -> dict[str, Any]:
    body = webhook.parsed
    if body is not None:
        return {"body": body}
    try:
        return {"body": webhook.body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(webhook.body).decode()}


def _in_colour(*, full: bool) -> Callable[[Webhook], None]:
    from rich.console import Console  # noqa: PLC0415  (only where there is a terminal)
    from rich.syntax import Syntax  # noqa: PLC0415  (likewise)
    from rich.text import Text  # noqa: PLC0415  (likewise)

    console = Console(highlight=False)

    def show(webhook: Webhook) -> None:
        if webhook.fault:
            style = "bold red"
        elif webhook.status >= _MULTIPLE_CHOICES:
            style = "yellow"
        else:
            style = "dim" if webhook.repeated else "default"
        mark = {True: ("✓ ", "green"), False: ("✗ ", "red"), None: ("? ", "yellow")}
        console.print(
            Text.assemble(mark[webhook.verified], (_headline(webhook), style)), soft_wrap=True
        )
        if full:
            for line in _head(webhook):
                console.print(Text(f"{INDENT}{printable(line)}", style="dim"), soft_wrap=True)
            lexer = "json" if webhook.parsed is not None else "text"
            text = "\n".join(printable(line) for line in _text(webhook).splitlines())
            console.print(Syntax(text, lexer, word_wrap=True, background_color="default"))
        sys.stdout.flush()

    return show


def _cut(text: str) -> str:
    line = " ".join(text[: WIDTH * 20].split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
