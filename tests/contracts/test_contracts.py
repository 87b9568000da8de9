"""Rules about the code itself: layers, imports, errors, the description of the API."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from importlinter.cli import lint_imports

from app.api.errors import STATUS
from app.domain import errors
from app.main import create_app
from app.settings import Settings

PROJECT = Path(__file__).parents[2]


def test_imports_follow_the_layers(monkeypatch, capsys):
    monkeypatch.chdir(PROJECT)
    assert lint_imports(config_filename="pyproject.toml", cache_dir=None) == 0, capsys.readouterr()


HEAVY = {"sklearn", "scipy", "joblib", "alembic", "aiohttp"}
"""Tens of megabytes each, or megabytes, that a process must have a reason for."""


WEB = "import app.cli.serve, app.main; app.main.create_app()"
DELIVERY = """
from app.settings import load_settings
from worker.main import make_broker

make_broker(load_settings(), ["delivery"]).close()
"""
INGEST = """
import uuid
from app.logs import configure_logging
from app.settings import load_settings
from worker.main import make_broker

configure_logging(load_settings())
broker = make_broker(load_settings(), ["ingest"])
broker.get_actor("chunk.ingest").fn(
    tenant_id=1,
    chunk_id=str(uuid.uuid4()),
    seq=1_790_000_000_000_000,
    documents=[{"id": str(uuid.uuid4()), "content": "The shuttle reached orbit."}],
)
broker.close()
"""


@pytest.mark.parametrize(
    ("work", "forbidden"),
    [
        (WEB, HEAVY | {"numpy", "worker"}),
        (
            "import worker.supervisor",
            HEAVY | {"numpy", "sqlalchemy", "uvloop", "cryptography.hazmat"},
        ),
        (DELIVERY, HEAVY | {"numpy"}),
        (INGEST, HEAVY | {"uvloop", "cryptography.hazmat"}),
    ],
    ids=["web", "supervisor", "delivery", "ingest"],
)
def test_a_process_imports_no_more_than_its_work_takes(work, forbidden, database_url, redis_url):
    code = f"{work}\nimport sys\nprint(*sorted({forbidden} & set(sys.modules)))"
    environment = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "LOG_LEVEL": "error"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == []
    if work is INGEST:
        with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
            row = connection.execute("SELECT category FROM documents").fetchone()
        assert row == ("sci.space",)


@pytest.mark.parametrize("module", ["app.main", "worker.main", "worker.supervisor", "app.settings"])
def test_importing_opens_nothing_and_reads_no_environment(module):
    code = (
        "import os, socket, sys\n"
        "def refuse(*_, **__): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "os.environ['PORT'] = 'not a port'\n"
        f"import {module}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False)
    assert done.returncode == 0


def _tree(kind: type) -> set[type]:
    return {kind}.union(*(_tree(child) for child in kind.__subclasses__()))


def test_every_error_of_the_domain_has_a_status():
    own = {kind for kind in _tree(errors.DocyardError) if kind.__module__ == errors.__name__}
    assert own - set(STATUS) == set()


def test_every_problem_is_documented():
    page = (PROJECT / "docs" / "problems.md").read_text(encoding="utf-8")
    codes = {kind.code for kind in STATUS} - {"error"}
    codes |= {"unauthorized", "anonymous_refused", "body_too_large", "internal_error"}
    codes |= {"method_not_allowed", "header_too_large", "http_invalid", "request_timeout"}
    codes |= {"shutting_down", "too_many_connections", "url_too_long"}
    assert [code for code in sorted(codes) if f"## {code.replace('_', '-')}\n" not in page] == []


def test_openapi_json_is_what_the_application_says():
    written = json.loads((PROJECT / "openapi.json").read_text(encoding="utf-8"))
    assert create_app(Settings()).openapi() == written, "run `python -m app openapi > openapi.json`"


def test_every_setting_is_documented():
    page = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    names = [name.upper() for name in Settings.model_fields]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_dependency_has_its_reason():
    import tomllib

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (PROJECT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    wanted = [
        *project["dependencies"],
        *itertools.chain(*project["optional-dependencies"].values()),
    ]
    names = [one.split(">")[0].split("[")[0] for one in wanted]
    assert [name for name in names if name not in page] == []
