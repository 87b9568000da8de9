"""``listen`` beside a real web process and a real worker."""

import json
import os
import signal
import subprocess
import sys

from tests.acceptance.conftest import PROJECT, until


def start_listening(system, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "listen", "--port", "0", "--json", *arguments],
        cwd=PROJECT,
        env=os.environ | {"ADMIN_API_KEY": "k"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    system.processes.append(process)
    return process


def read_until(process, text):
    said = ""
    while text not in said:
        line = process.stderr.readline()
        assert line, said
        said += line


def keys(system):
    _, page = system.get("/destinations", Authorization="Bearer k")
    return [one["key"] for one in page["items"]]


def close(process):
    assert process.wait(timeout=15) is not None
    process.stdout.close()
    process.stderr.close()


def test_documents_arrive_verified_and_nothing_stays_registered(
    make_system, database_url, redis_url
):
    system = make_system(database_url, redis_url, ADMIN_API_KEY="k", INGEST_PROCESSES="1")
    system.start_web()
    killed = start_listening(system, "--server", system.url, "--key", "killed")
    read_until(killed, "Listening on")
    killed.kill()
    close(killed)
    assert keys(system) == ["killed"]

    filter_ = json.dumps({"attributes.wanted": True})
    listening = start_listening(
        system, "--server", system.url, "--key", "mine", "--filter", filter_, "--fail-rate", "0"
    )
    read_until(listening, "Listening on")
    assert keys(system) == ["mine"], "what was left over is gone"
    _, found = system.get("/webhook-keys", Authorization="Bearer k")
    public = found["items"][0]["public_key"]
    by_public_key = start_listening(
        system, "--server", system.url, "--key", "public", "--secret", public, "--count", "2"
    )
    read_until(by_public_key, "Listening on")
    system.start("worker")
    for wanted in (False, True):
        body = {"content": f"The shuttle reached orbit: {wanted}", "attributes": {"wanted": wanted}}
        assert system.post("/documents", body, Authorization="Bearer k")[0] == 202

    line = json.loads(listening.stdout.readline())
    assert (line["verified"], line["status"], line["repeated"]) == (True, 204, False)
    assert line["body"]["data"]["content"] == "The shuttle reached orbit: True"
    assert until(lambda: _states(system, line) == ["delivered", "delivered"])

    assert [json.loads(by_public_key.stdout.readline())["verified"] for _ in range(2)] == [True] * 2
    close(by_public_key)
    assert by_public_key.returncode == 0
    listening.send_signal(signal.SIGTERM)
    close(listening)
    assert listening.returncode == 0
    assert keys(system) == []


def _states(system, line):
    path = f"/documents/{line['body']['data']['id']}/deliveries"
    _, answer = system.get(path, Authorization="Bearer k")
    return [one["state"] for one in answer["items"]]
