"""The options of ``listen``, and how their texts are read."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

MAX_DELAY_SECONDS = 3600.0

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|)")
_SECONDS_PER = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}
_ANSWERING = "Answering"
_REGISTERING = "Registering"


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS_PER[match[2]] if match else -1.0
    if not 0 <= seconds <= MAX_DELAY_SECONDS:
        raise typer.BadParameter(f"{text!r} is no time such as 2s, 500ms or 1m, up to 60m")
    return seconds


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise typer.BadParameter(f"{text!r} is no http:// or https:// address")
    return text


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise typer.BadParameter("is not a JSON object")
    return value


Port = Annotated[int, typer.Option(min=0, max=65_535, help="Where to listen; 0: any free port.")]
Host = Annotated[str, typer.Option(help="0.0.0.0: reachable from other machines.")]
VerificationKey = Annotated[
    str | None,
    typer.Option(
        envvar="VERIFICATION_KEY",
        help="To verify with: whsec_…, whpk_…, PEM or base64; made up if left out.",
    ),
]
Count = Annotated[int | None, typer.Option(min=1, help="End after so many that were not refused.")]
AsJson = Annotated[bool, typer.Option("--json", help="A line of JSON for each.")]
Full = Annotated[bool, typer.Option("--full", help="Show headers and bodies too.")]

ForwardTo = Annotated[
    str | None,
    typer.Option(
        parser=_http_url,
        metavar="URL",
        help="Pass each on, and answer what is answered there.",
        rich_help_panel=_ANSWERING,
    ),
]
FailRate = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Fail this share of them.", rich_help_panel=_ANSWERING),
]
Status = Annotated[
    int | None,
    typer.Option(
        min=200,
        max=599,
        help="Answer this: to all, or with --fail-rate to that share (503).",
        rich_help_panel=_ANSWERING,
    ),
]
Delay = Annotated[
    float,
    typer.Option(
        parser=_duration,
        metavar="TIME",
        help="Hold back each answer: 2s, 500ms.",
        rich_help_panel=_ANSWERING,
    ),
]

Register = Annotated[
    bool, typer.Option(help="Be a destination until the end.", rich_help_panel=_REGISTERING)
]
Server = Annotated[
    str | None,
    typer.Option(
        parser=_http_url,
        metavar="URL",
        help="Of which server; left out: the one of `make up`.",
        rich_help_panel=_REGISTERING,
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="ADMIN_API_KEY", help="The server's ADMIN_API_KEY.", rich_help_panel=_REGISTERING
    ),
]
PublicUrl = Annotated[
    str | None,
    typer.Option(
        parser=_http_url,
        metavar="URL",
        help="How the server reaches this receiver: through a tunnel, for one.",
        rich_help_panel=_REGISTERING,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(help="Of the destination; made up if left out.", rich_help_panel=_REGISTERING),
]
Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", help="Subscribe to it; may be repeated.", rich_help_panel=_REGISTERING),
]
Categories = Annotated[
    list[str] | None,
    typer.Option("--category", help="Take only it; may be repeated.", rich_help_panel=_REGISTERING),
]
Events = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        help="Operational events to get too, * for all; may be repeated.",
        rich_help_panel=_REGISTERING,
    ),
]
Filter = Annotated[
    dict[str, Any] | None,
    typer.Option(
        "--filter",
        parser=_json_object,
        metavar="JSON",
        help="Take only what meets it.",
        rich_help_panel=_REGISTERING,
    ),
]
Body = Annotated[str | None, typer.Option(help="envelope, raw, …", rich_help_panel=_REGISTERING)]
