"""The proxy does what it says, seen from both ends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from faulty_proxy import FaultyProxy

WAIT_S = 10.0
QUIET_S = 0.3


class Server:
    """Takes connections and remembers what each sent; answers each `?` with `answer`."""

    def __init__(self) -> None:
        self.answer = b"!"
        self.connections: list[socket.socket] = []
        self.received: list[bytearray] = []
        self.ends: list[str] = []
        self.changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_for(self, number: int, data: bytes) -> None:
        """Wait until a connection has sent exactly this."""
        with self.changed:
            done = self.changed.wait_for(
                lambda: len(self.received) > number and bytes(self.received[number]) == data, WAIT_S
            )
        assert done, self.received

    def wait_for_ends(self, *ends: str) -> None:
        with self.changed:
            done = self.changed.wait_for(lambda: sorted(self.ends) == sorted(ends), WAIT_S)
        assert done, self.ends

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it may be closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self.connections.append(connection)
            self.received.append(bytearray())
            threading.Thread(target=self._serve, args=(connection, self.received[-1]), daemon=True).start()

    def _serve(self, connection: socket.socket, received: bytearray) -> None:
        end = "closed"
        try:
            while data := connection.recv(65_536):
                with self.changed:
                    received += data
                    self.changed.notify_all()
                if b"?" in data:
                    connection.sendall(self.answer)
        except OSError:
            end = "reset"
        with self.changed:
            self.ends.append(end)
            self.changed.notify_all()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultyProxy]:
    with FaultyProxy("127.0.0.1", server.port) as running:
        yield running


@pytest.fixture
def client(proxy: FaultyProxy) -> Iterator[socket.socket]:
    with connect(proxy) as connection:
        yield connection


def connect(proxy: FaultyProxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def connect_and_listen(proxy: FaultyProxy) -> None:
    """Connect and wait for a byte: a reset comes while the one or the other is done."""
    with connect(proxy) as connection:
        connection.recv(1)


def ask(connection: socket.socket, question: bytes = b"a?") -> bytes:
    connection.sendall(question)
    return connection.recv(100)


def hears_nothing(connection: socket.socket) -> bool:
    connection.settimeout(QUIET_S)
    try:
        return connection.recv(1) == b"never"
    except TimeoutError:
        return True
    finally:
        connection.settimeout(WAIT_S)


def test_without_fault_bytes_and_ends_pass_both_ways(
    server: Server, proxy: FaultyProxy, client: socket.socket
) -> None:
    server.answer = bytes(range(256)) * 400
    client.sendall(b"question?")
    answer = b""
    while len(answer) < len(server.answer):
        answer += client.recv(65_536)
    assert answer == server.answer
    client.shutdown(socket.SHUT_WR)
    server.wait_for_ends("closed")
    server.connections[0].close()
    assert client.recv(1) == b""
    server.wait_for(0, b"question?")
    assert (proxy.counts.to_server, proxy.counts.to_client, proxy.counts.lost) == (9, 102_400, 0)


def test_latency_delays_each_way_and_is_over_when_it_is_set_back(
    proxy: FaultyProxy, client: socket.socket
) -> None:
    proxy.set(latency_s=0.2)
    began_s = time.monotonic()
    assert ask(client) == b"!"
    assert 0.4 <= time.monotonic() - began_s < 2
    proxy.set()
    began_s = time.monotonic()
    assert ask(client) == b"!"
    assert time.monotonic() - began_s < 0.2


def test_what_is_late_on_its_way_to_the_server_arrives_although_the_client_has_gone(
    server: Server, proxy: FaultyProxy, client: socket.socket
) -> None:
    proxy.set(to_server_latency_s=0.4)
    began_s = time.monotonic()
    client.sendall(b"late")
    client.close()
    server.wait_for(0, b"late")
    assert 0.4 <= time.monotonic() - began_s < 2
    server.wait_for_ends("closed")


def test_slow_bytes_pass_one_by_one(server: Server, proxy: FaultyProxy, client: socket.socket) -> None:
    server.answer = b"0123456789"
    proxy.set(bytes_per_s=50)
    began_s = time.monotonic()
    client.sendall(b"0123456789?")
    answer = b"".join(client.recv(100) for _ in range(10))
    assert answer == server.answer
    assert 0.3 <= time.monotonic() - began_s < 3
    assert len(answer) == 10


def test_silent_proxy_takes_connections_and_forwards_nothing_and_loses_them_for_good(
    server: Server, proxy: FaultyProxy, client: socket.socket
) -> None:
    assert ask(client) == b"!"
    proxy.set(silent=True)
    with connect(proxy) as second:
        for each in (client, second):
            each.sendall(b"lost?")
            assert hears_nothing(each)
        proxy.set()
        for each in (client, second):
            each.sendall(b"lost too?")
            assert hears_nothing(each)
    with connect(proxy) as third:
        assert ask(third) == b"!"
    assert [bytes(each) for each in server.received] == [b"a?", b"", b"a?"]
    assert proxy.counts.lost == 2 * len(b"lost?lost too?")


def test_silenced_connections_are_lost_and_new_ones_work(
    server: Server, proxy: FaultyProxy, client: socket.socket
) -> None:
    assert ask(client) == b"!"
    proxy.silence()
    client.sendall(b"lost?")
    assert hears_nothing(client)
    with connect(proxy) as second:
        assert ask(second) == b"!"
    server.wait_for_ends("closed")  # the second's: nobody tells the server of the first
    assert bytes(server.received[0]) == b"a?"


def test_reset_resets_both_sides_and_new_connections_work(
    server: Server, proxy: FaultyProxy, client: socket.socket
) -> None:
    assert ask(client) == b"!"
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    server.wait_for_ends("reset")
    with connect(proxy) as second:
        assert ask(second) == b"!"


def test_cut_closes_both_sides(server: Server, proxy: FaultyProxy, client: socket.socket) -> None:
    assert ask(client) == b"!"
    proxy.cut()
    assert client.recv(1) == b""
    server.wait_for_ends("closed")


def test_refusing_proxy_resets_new_connections_and_keeps_the_old(
    proxy: FaultyProxy, client: socket.socket
) -> None:
    assert ask(client) == b"!"
    proxy.set(refuse=True)
    with pytest.raises(ConnectionResetError):
        connect_and_listen(proxy)
    assert ask(client) == b"!"


def test_dropped_answer_was_asked_for(server: Server, proxy: FaultyProxy, client: socket.socket) -> None:
    proxy.set(answers="drop")
    client.sendall(b"a?")
    server.wait_for(0, b"a?")
    assert hears_nothing(client)
    assert proxy.counts.lost == 1


def test_reset_answer_was_asked_for(server: Server, proxy: FaultyProxy, client: socket.socket) -> None:
    proxy.set(answers="reset")
    client.sendall(b"a?")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    server.wait_for(0, b"a?")


def test_matching_bytes_choose_the_connections_at_fault(
    server: Server, proxy: FaultyProxy, client: socket.socket
) -> None:
    proxy.set(answers="drop", matching=b"put")
    assert ask(client, b"get?") == b"!"
    with connect(proxy) as second:
        second.sendall(b"put?")
        server.wait_for(1, b"put?")
        assert hears_nothing(second)
        assert ask(client, b"get?") == b"!"
    proxy.set(to_server_latency_s=0.3, matching=b"put")
    began_s = time.monotonic()
    assert ask(client, b"get?") == b"!"
    assert time.monotonic() - began_s < 0.2
    assert ask(client, b"put?") == b"!"
    assert time.monotonic() - began_s >= 0.3


def test_truncated_to_the_server(server: Server, proxy: FaultyProxy, client: socket.socket) -> None:
    proxy.set(to_server_bytes=5)
    client.sendall(b"0123456?")
    assert client.recv(1) == b""
    server.wait_for(0, b"01234")
    server.wait_for_ends("closed")
    assert (proxy.counts.truncated, proxy.counts.lost) == (1, 3)


def test_truncated_to_the_client(server: Server, proxy: FaultyProxy, client: socket.socket) -> None:
    server.answer = b"0123456789"
    proxy.set(to_client_bytes=4)
    client.sendall(b"a?")
    answer = b""
    while part := client.recv(100):
        answer += part
    assert answer == b"0123"
    assert proxy.counts.truncated == 1


def test_server_that_is_not_there_is_a_reset(proxy: FaultyProxy, server: Server) -> None:
    server.close()
    with pytest.raises(ConnectionResetError):
        connect_and_listen(proxy)
