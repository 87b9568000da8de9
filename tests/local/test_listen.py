"""``python -m app listen`` in processes of their own, on a stand-in for the instance."""

import base64
import gzip
import http.client
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from app.cli.main import commands
from app.domain.signing import new_secret, sign
from app.domain.webhook_keys import new_key_pair
from app.local.folder import PROJECT
from tests.local.standin_instance import post_webhook

DOCUMENT = {"data": {"category": "sci.space", "confidence": 0.93, "content": "To\norbit " * 20}}


class Listening:
    """A listener of a test's own; ``with`` waits until it listens, and ends it by SIGINT."""

    def __init__(self, *arguments, stdout=subprocess.PIPE, expected=0):
        self.expected = expected
        self.json = "--json" in arguments
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "listen", "--port", "0", *arguments],
            cwd=PROJECT,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.notes = self.process.stderr if self.json else self.process.stdout
        self.lines = iter(self.process.stdout) if self.process.stdout else None
        self.said = ""

    def __enter__(self):
        while "Listening on" not in self.said:
            line = self.notes.readline()
            assert line, self.said + self.process.stderr.read()
            self.said += line
        self.url = re.search(r"Listening on (http://\S+/)", self.said)[1]
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        assert self.end() == self.expected, self.rest

    def end(self):
        """Wait for its end and return its exit code; what it still said is in ``rest``."""
        if not self.process.stderr.closed:
            code = self.process.wait(timeout=15)
            self.rest = self.process.stderr.read()
            self.process.stderr.close()
            if self.process.stdout:
                self.rest += self.process.stdout.read()
                self.process.stdout.close()
            self.code = code
        return self.code


def request(url, method="POST", body=b"", **headers):
    """Return status, headers and body of the answer; the names' underscores become dashes."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, urlsplit(url)._replace(scheme="", netloc="").geturl(), body, sent)
    answer = connection.getresponse()
    got = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return got


def signed(secret, body, webhook_id="msg_1"):
    now = int(time.time())
    return {
        "webhook_id": webhook_id,
        "webhook_timestamp": str(now),
        "webhook_signature": sign(secret, webhook_id, now, body),
    }


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "app", "listen", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def refused(*arguments):
    """Return what is said about arguments that are wrong, without boxes and line ends."""
    done = CliRunner().invoke(commands("listen"), ["listen", *arguments])
    assert done.exit_code == 2
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.output).split())


# Receiving


@pytest.mark.usefixtures("folder")
def test_it_shows_what_arrives_and_refuses_what_is_not_signed_right():
    secret = new_secret()
    with Listening("--no-register", "--secret", secret) as listening:
        assert "verifying signatures" in listening.said
        assert post_webhook(listening.url, secret, DOCUMENT) == 204
        assert re.search(r"^\S+  sci\.space +93%  To orbit To .*…$", next(listening.lines))
        assert post_webhook(listening.url, secret, DOCUMENT) == 204
        assert next(listening.lines).endswith("…  (again)\n")
        assert post_webhook(listening.url, new_secret(), DOCUMENT) == 401
        assert re.search("  REFUSED  .*no signature fits", next(listening.lines))
        assert post_webhook(listening.url, secret, ["no envelope"], "msg_2") == 204
        assert '["no envelope"]' in next(listening.lines)
        event = {"type": "destination.disabled", "data": {"key": "a"}}
        assert post_webhook(listening.url, secret, event, "msg_3") == 204
        assert re.search(r'destination\.disabled +\{"key": "a"\}$', next(listening.lines))


@pytest.mark.usefixtures("folder")
def test_without_a_key_it_says_that_it_verifies_nothing():
    with Listening("--no-register") as listening:
        assert "NOT verifying" in listening.said
        assert post_webhook(listening.url, new_secret(), {"data": {}}) == 204
        next(listening.lines)


@pytest.mark.usefixtures("folder")
def test_json_lines_hold_everything_and_notes_go_elsewhere():
    secret = new_secret()
    with Listening("--no-register", "--json", "--secret", secret) as listening:
        body = json.dumps(DOCUMENT).encode()
        assert request(f"{listening.url}a?b=c", body=body, **signed(secret, body))[0] == 204
        line = json.loads(next(listening.lines))
        assert line["body"] == DOCUMENT
        assert (line["method"], line["path"]) == ("POST", "/a?b=c")
        assert (line["webhook_id"], line["verified"], line["status"]) == ("msg_1", True, 204)
        assert (line["repeated"], line["fault"], line["forwarded"]) == (False, None, None)
        assert ["webhook-id", "msg_1"] in line["headers"]
        packed = gzip.compress(b"boom", mtime=0)
        status, *_ = request(
            listening.url, body=packed, Content_Encoding="gzip", **signed(secret, packed, "m2")
        )
        line = json.loads(next(listening.lines))
        assert (status, line["verified"]) == (204, True), "the signature is of what was sent"
        assert base64.b64decode(line["body_base64"]) == packed
        assert request(listening.url, "GET")[0] == 401
        line = json.loads(next(listening.lines))
        assert line["verified"] is False
        assert "the header webhook-id is missing" in line["fault"]


@pytest.mark.usefixtures("folder")
def test_full_shows_headers_and_bodies():
    with Listening("--no-register", "--full") as listening:
        request(listening.url, body=b'{"data": {"content": "x"}}', X_Own="1")
        shown = [next(listening.lines) for _ in range(12)]
        assert "    POST /\n" in shown
        assert any(line.lower() == "    x-own: 1\n" for line in shown)
        assert '        "content": "x"\n' in shown


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("options", [(), ("--full",)])
def test_in_a_terminal_it_has_colours_and_obeys_no_strangers(options, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    listening = Listening("--no-register", *options, stdout=theirs)
    os.close(theirs)
    said = b""
    while b"Ctrl-C" not in said:
        said += os.read(ours, 65536)
    url = re.search(rb"http://\S+/", said)[0].decode()
    body = json.dumps({"data": {"content": "a\x1b]0;title\x07b\x9bc"}}, ensure_ascii=False)
    request(url, body=body.encode(), X_Own="\x9b31m")
    while b"b" + "\ufffd".encode() + b"c" not in said:
        said += os.read(ours, 65536)
    assert b"\x1b[" in said
    assert b"\x1b]" not in said
    assert "\x9b".encode() not in said
    listening.process.send_signal(signal.SIGINT)
    assert listening.end() == 0
    os.close(ours)


@pytest.mark.usefixtures("folder")
def test_a_count_ends_it_after_so_many_that_hold():
    secret = new_secret()
    with Listening("--no-register", "--json", "--count", "2", "--secret", secret) as listening:
        assert post_webhook(listening.url, secret, {}, "msg_1") == 204
        assert post_webhook(listening.url, new_secret(), {}, "msg_2") == 401
        assert post_webhook(listening.url, secret, {}, "msg_3") == 204
        assert listening.end() == 0
        assert [json.loads(line)["status"] for line in listening.rest.splitlines()[-3:]] == [
            204,
            401,
            204,
        ]


# Answering


@pytest.mark.usefixtures("folder")
def test_it_answers_as_it_is_told():
    with Listening("--no-register", "--status", "410") as listening:
        assert request(listening.url)[0] == 410
        assert next(listening.lines).endswith("(answered 410)\n")
    with Listening("--no-register", "--fail-rate", "0.5", "--delay", "10ms") as listening:
        answers = {request(listening.url)[0] for _ in range(60)}
        assert answers == {204, 503}


@pytest.mark.usefixtures("folder")
def test_an_answer_is_held_back():
    with Listening("--no-register", "--delay", "1s", "--count", "1") as listening:
        began_at = time.monotonic()
        assert request(listening.url)[0] == 204, "the last one too, although it ends behind it"
        assert time.monotonic() - began_at >= 1
        assert listening.end() == 0


class Target(ThreadingHTTPServer):
    """A program of the user's: keeps what it gets, answers what only it would."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _TargetHandler)
        self.got = []
        self.url = f"http://127.0.0.1:{self.server_port}/hooks?of=mine"


class _TargetHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _take(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.got.append((self.command, self.path, self.headers.items(), body))
        self.send_response(429)
        for name, value in [("Retry-After", "7"), ("X-Two", "1"), ("X-Two", "2")]:
            self.send_header(name, value)
        self.send_header("Content-Encoding", "gzip")
        answer = gzip.compress(b"slowly")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_POST(self):
        self._take()

    def do_PUT(self):
        self._take()

    def log_message(self, *_):
        pass


@pytest.fixture
def target():
    server = Target()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.usefixtures("folder")
def test_it_passes_requests_on_unchanged_and_answers_what_the_target_answered(target):
    secret = new_secret()
    with Listening("--no-register", "--secret", secret, "--forward-to", target.url) as listening:
        body = gzip.compress(b'{"data": {}}')
        sent = {
            "Content_Encoding": "gzip",
            "Content_Type": "application/x-own",
            "User_Agent": "Docyard/1",
            "X_Own": "1",
            "Connection": "keep-alive, x-hop",
            "X_Hop": "1",
        }
        status, headers, answer = request(
            f"{listening.url}elsewhere", "PUT", body, **sent, **signed(secret, body)
        )
        assert (status, headers["Retry-After"], gzip.decompress(answer)) == (429, "7", b"slowly")
        assert "forwarded: 429 after" in next(listening.lines)
        ((method, path, got, got_body),) = target.got
        assert (method, path, got_body) == ("PUT", "/hooks?of=mine", body)
        names = {name.lower(): value for name, value in got}
        assert names.pop("host") == f"127.0.0.1:{target.server_port}"
        assert names == {
            "accept-encoding": "identity",
            "content-encoding": "gzip",
            "content-length": str(len(body)),
            "content-type": "application/x-own",
            "user-agent": "Docyard/1",
            "x-own": "1",
        } | {name.replace("_", "-"): value for name, value in signed(secret, body).items()}
        assert post_webhook(listening.url, new_secret(), {}) == 401
        assert "REFUSED" in next(listening.lines)
        assert len(target.got) == 1, "what does not hold is not passed on"


@pytest.mark.usefixtures("folder")
def test_a_target_that_is_down_is_a_bad_gateway():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with Listening("--no-register", "--forward-to", url) as listening:
            status, _, answer = request(listening.url, body=b"{}")
            assert (status, b"did not answer" in answer) == (502, True)
            assert "not forwarded: " in next(listening.lines)


# Registering


def test_it_registers_itself_and_removes_itself(instance):
    with Listening() as listening:
        (destination,) = instance.destinations.values()
        assert destination["url"] == listening.url
        exported = re.search(r"^export VERIFICATION_KEY=(\S+)$", listening.said, re.MULTILINE)[1]
        assert exported == destination["secret"]
        assert post_webhook(listening.url, exported, {"data": {}}) == 204
        next(listening.lines)
    assert instance.destinations == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_any_signal_to_end_leaves_nothing_registered(instance, number):
    with Listening() as listening:
        assert len(instance.destinations) == 1
        listening.process.send_signal(number)
        assert listening.end() == 0
        assert instance.destinations == {}
        assert "Removed the destination listen-" in listening.rest


def test_nothing_stays_registered_when_its_reader_goes_away(instance):
    with Listening("--json") as listening:
        (destination,) = instance.destinations.values()
        listening.process.stdout.close()
        post_webhook(listening.url, destination["secret"], {})
        assert listening.process.wait(timeout=15) == 0
        assert "Traceback" not in listening.process.stderr.read()
        assert instance.destinations == {}
        listening.process.stderr.close()
        listening.code = 0


def test_a_leftover_of_a_killed_one_is_removed_by_the_next_and_no_other(instance):
    with Listening() as alive, Listening(expected=-signal.SIGKILL) as killed:
        killed.process.kill()
        assert killed.end() == -signal.SIGKILL
        others = {
            "elsewhere": "python -m app, process 1 on other/1, started never",
            "user": "python -m app",
            "none": None,
        }
        for name, description in others.items():
            instance.destinations[name] = {"key": name, "url": "", "description": description}
        assert len(instance.destinations) == 5
        with Listening() as third:
            urls = {one["url"] for one in instance.destinations.values()}
            assert urls == {"", alive.url, third.url}
            assert len(instance.destinations) == 5
    assert set(instance.destinations) == set(others)


def test_what_to_register_is_an_option(instance):
    options = ["--key", "orders", "--topic", "a.*", "--topic", "b.**", "--category", "sci.space"]
    filter_ = {"attributes.tier": "gold"}
    options += ["--filter", json.dumps(filter_), "--body", "raw", "--event", "*"]
    with Listening(*options, "--public-url", "https://hooks.example/x"):
        (made,) = instance.destinations.values()
        assert made.pop("secret").startswith("whsec_")
        assert made.pop("description").startswith("python -m app, process ")
        assert made == {
            "key": "orders",
            "url": "https://hooks.example/x",
            "topics": ["a.*", "b.**"],
            "categories": ["sci.space"],
            "events": ["*"],
            "filter": filter_,
            "body": "raw",
        }


def test_a_public_key_asks_for_signatures_that_it_verifies(instance):
    with Listening("--secret", new_key_pair().public_key) as listening:
        (made,) = instance.destinations.values()
        assert made["signatures"] == ["v1a"]
        assert "secret" not in made
        assert "export" not in listening.said


def test_a_server_elsewhere_is_asked_with_its_key(instance):
    server = f"http://127.0.0.1:{instance.server_port}"
    with Listening("--server", server, "--api-key", "hunter2"):
        assert {key for _, _, key in instance.asked} == {"Bearer hunter2"}
    assert instance.destinations == {}


def test_a_refusal_of_the_server_is_a_sentence(instance):
    instance.refuse = "The key is wrong."
    done = run("--port", "0")
    assert done.returncode == 1
    assert re.fullmatch(r"POST \S+ answered 401: The key is wrong\.\n", done.stderr)


def test_a_server_that_is_down_is_a_sentence():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = run("--port", "0", "--server", server)
    assert done.returncode == 1
    assert re.fullmatch(rf"{server} does not answer \(.*refused\)\. Is it up, .*\n", done.stderr)


def test_a_server_that_went_down_meanwhile_is_a_sentence_that_names_what_stays(instance):
    with Listening("--key", "orders", expected=1) as listening:
        instance.shutdown()
        instance.server_close()
        listening.process.send_signal(signal.SIGTERM)
        assert listening.end() == 1
        assert "The destination orders could not be removed: " in listening.rest
        assert "Traceback" not in listening.rest


@pytest.mark.usefixtures("folder")
def test_without_anything_up_it_names_the_ways_out():
    done = run("--port", "0")
    assert done.returncode == 1
    assert "Start it with `make up`. Or name a server with --server" in done.stderr


@pytest.mark.usefixtures("folder")
def test_a_port_in_use_is_a_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--no-register", "--port", str(port))
    assert done.returncode == 1
    assert f"Nothing can listen on 127.0.0.1, port {port}: " in done.stderr


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--secret", "hunter2"), "must be whsec_… (a secret)"),
        (("--delay", "soon"), "no time such as 2s"),
        (("--delay", "2h"), "no time such as 2s"),
        (("--fail-rate", "2"), "Input should be "),
        (("--status", "99"), "Input should be "),
        (("--count", "0"), "Input should be "),
        (("--forward-to", "localhost:3000"), "is no http:// or https:// address"),
        (("--filter", "{"), "is not JSON"),
        (("--filter", "[]"), "is not a JSON object"),
        (("--server", "https://docs.example"), "Open a tunnel to this receiver"),
    ],
)
def test_options_that_make_no_sense_are_named(arguments, said):
    assert said in refused(*arguments)
