import socket
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.local.valkey import ask
from tests.chaos.fault_proxy import FaultProxy

SOON = 5.0


class Echo:
    """A server that says back what it hears, and how each of its connections ended."""

    def __init__(self, address):
        self.ends = deque()
        family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
        self._listening = socket.socket(family)
        self._listening.bind(str(address) if isinstance(address, Path) else address)
        self._listening.listen()
        self.address = address if isinstance(address, Path) else self._listening.getsockname()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._speak, args=(connection,)))
            self._threads[-1].start()

    def _speak(self, connection):
        with connection:
            try:
                while heard := connection.recv(65536):
                    connection.sendall(heard)
                self.ends.append("closed")
            except ConnectionResetError:
                self.ends.append("reset")
            except BrokenPipeError:
                self.ends.append("closed")

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(SOON)


@pytest.fixture(params=["tcp", "unix"])
def kind(request):
    return request.param


@pytest.fixture
def echo(kind):
    with tempfile.TemporaryDirectory(prefix="docyard-t-", dir="/tmp") as folder:
        server = Echo(Path(folder) / "echo" if kind == "unix" else ("127.0.0.1", 0))
        yield server
        server.close()


@pytest.fixture
def proxy(echo):
    listen = echo.address.with_name("proxy") if isinstance(echo.address, Path) else None
    with FaultProxy(echo.address, listen) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy):
    made = []

    def connect():
        unix = isinstance(proxy.address, Path)
        client = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        made.append(client)
        client.settimeout(SOON)
        client.connect(str(proxy.address) if unix else proxy.address)
        return client

    yield connect
    for client in made:
        client.close()


def says(client, text=b"hello"):
    client.sendall(text)
    return heard(client, len(text))


def heard(client, count):
    got = b""
    while len(got) < count and (piece := client.recv(count - len(got))):
        got += piece
    return got


def connect_and_wait(address):
    with socket.create_connection(address, SOON) as client:
        client.recv(1)


def ended(client):
    """Return how the other side ended a connection that has nothing more to say."""
    try:
        assert client.recv(1) == b""
    except ConnectionResetError:
        return "reset"
    return "closed"


def wait_until(condition):
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.005)


def test_it_passes_everything_on_and_ends_with_its_clients(proxy, connect, echo):
    client, other = connect(), connect()
    text = bytes(range(256)) * 4000
    sending = threading.Thread(target=client.sendall, args=(text,))
    sending.start()
    assert heard(client, len(text)) == text
    sending.join()
    assert says(other) == b"hello"
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b"", "the server saw the end, and its own end came back"
    wait_until(lambda: proxy.open_connections == 1)
    assert (proxy.accepted, list(echo.ends)) == (2, ["closed"])


def test_a_reset_ends_every_connection_and_lets_new_ones_in(kind, proxy, connect, echo):
    clients = [connect(), connect()]
    assert [says(one) for one in clients] == [b"hello", b"hello"]
    proxy.reset()
    how = "reset" if kind == "tcp" else "closed"
    assert [ended(one) for one in clients] == [how, how]
    wait_until(lambda: len(echo.ends) == 2)
    assert set(echo.ends) == {how}
    assert says(connect()) == b"hello"


def test_a_blackhole_accepts_and_stalls_and_loses_nothing(proxy, connect):
    old = connect()
    assert says(old) == b"hello"
    proxy.blackhole()
    new = connect()
    for client in (old, new):
        client.sendall(b"anybody?")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(SOON)
    proxy.heal()
    assert [heard(one, 8) for one in (old, new)] == [b"anybody?"] * 2


def test_a_blackhole_can_be_reset(proxy, connect):
    proxy.blackhole()
    client = connect()
    client.sendall(b"anybody?")
    wait_until(lambda: proxy.open_connections == 1)
    proxy.reset()
    assert ended(client)


def test_new_connections_are_refused_and_old_ones_go_on(proxy, connect):
    old = connect()
    assert says(old) == b"hello"
    proxy.refuse()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            connect()
    assert says(old) == b"hello"
    proxy.heal()
    assert says(connect()) == b"hello"


def test_a_delay_holds_bytes_back_without_making_them_fewer(proxy, connect):
    client = connect()
    proxy.delay(0.15)
    began_at = time.monotonic()
    for _ in range(20):
        client.sendall(b"x" * 1000)
        threading.Event().wait(0.005)
    assert heard(client, 20_000) == b"x" * 20_000
    passed = time.monotonic() - began_at
    assert 0.3 <= passed < 20 * 0.3, "there and back once, not once for each piece"
    proxy.delay(60)
    client.sendall(b"late")
    proxy.heal()
    assert heard(client, 4) == b"late"


def test_a_throttle_lets_so_many_bytes_pass(proxy, connect):
    client = connect()
    proxy.throttle(20_000)
    began_at = time.monotonic()
    assert says(client, b"x" * 8_000) == b"x" * 8_000
    assert time.monotonic() - began_at >= 0.4
    proxy.heal()
    assert says(client, b"x" * 500_000) == b"x" * 500_000


@pytest.mark.parametrize("towards", ["client", "server"])
def test_a_cut_ends_a_connection_behind_so_many_bytes(proxy, connect, towards):
    old = connect()
    proxy.cut_after(1_000, towards)
    assert says(old) == b"hello"
    proxy.cut_after(7, towards)  # counted from here
    new = connect()
    for client in (old, new):
        assert says(client, b"12345") == b"12345"
        client.sendall(b"67890")
        got = heard(client, 5)
        # Cut on its way there, it may be echoed before the end or not.
        assert got == b"67" if towards == "client" else b"67".startswith(got)
    wait_until(lambda: proxy.open_connections == 0)
    proxy.heal()
    assert says(connect(), b"1234567890") == b"1234567890"


def test_a_target_that_is_down_ends_each_connection_and_no_more():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with FaultProxy(unused.getsockname()) as proxy:
            for _ in range(3):
                with pytest.raises(ConnectionResetError):
                    connect_and_wait(proxy.address)
            wait_until(lambda: proxy.open_connections == 0)
            assert proxy.accepted == 3


def test_a_real_valkey_is_reached_through_it(valkey):
    with FaultProxy(valkey.server.socket) as proxy:
        client = redis.Redis(port=proxy.port, socket_timeout=SOON, retry=Retry(NoBackoff(), 0))
        assert client.ping() is True
        proxy.cut_after(3, "client")
        with pytest.raises(redis.ConnectionError):
            client.ping()
        proxy.heal()
        assert client.ping() is True
        proxy.refuse()
        proxy.reset()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        client.close()
    assert ask(valkey.server.socket, b"PING") == b"+PONG\r\n"


def test_it_leaves_no_thread_and_no_socket_file():
    before = set(threading.enumerate())
    with tempfile.TemporaryDirectory(prefix="docyard-t-", dir="/tmp") as folder:
        path = Path(folder) / "proxy"
        with FaultProxy(("127.0.0.1", 9), path):
            assert path.is_socket()
        assert not path.exists()
    assert set(threading.enumerate()) <= before
