"""Puts the commands together, importing only the one that was asked for.

``up`` has nothing to do with FastAPI and ``serve`` nothing with scikit-learn; each import that is
not made is time before the first document.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import typer

from app.domain.errors import DocyardError
from app.local.errors import LocalError

COMMANDS = (
    # a platform runs these
    "serve",
    "worker",
    "migrate",
    "reencrypt",
    "verify",
    "rejected",
    "dead-letters",
    "purge",
    "openapi",
    # a person does
    "up",
    "status",
    "logs",
    "demo",
    "listen",
    "reset",
)


def commands(asked: str | None) -> typer.Typer:
    """Return the command line with the asked command, or with all for help and mistakes."""
    cli = typer.Typer(
        add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, name="app"
    )
    cli.callback()(_docyard)
    for name in [asked] if asked in COMMANDS else COMMANDS:
        variable = name.replace("-", "_")
        command = getattr(importlib.import_module(f"app.cli.{variable}"), variable)
        if isinstance(command, typer.Typer):
            cli.add_typer(command, name=name)
        else:
            cli.command(name)(command)
    return cli


def _docyard() -> None:
    """Docyard: takes documents in, classifies each, stores it and fans it out."""


def _fill_streams() -> None:
    """Open what was closed when we were started (``<&- >&-``), in its place.

    Else a socket would have it, which libuv will not close: it takes that for a mistake and aborts.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  (for good)


def main() -> None:
    """Run the command named on the command line; an error of ours is one sentence, not a trace."""
    _fill_streams()
    try:
        commands(sys.argv[1] if len(sys.argv) > 1 else None)(prog_name="python -m app")
    except (DocyardError, LocalError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
