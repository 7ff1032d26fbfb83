"""Control socket and metrics page: bounded, and never blocked by a client."""

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from srpnode import control, metrics, streams

DEADLINE_S = 60.0


class Turning:
    """Drives a selector in a thread until it is closed."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self._wake, waker = socket.socketpair()
        self._waker = waker
        self.selector.register(self._wake, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while True:
            for key, mask in self.selector.select(0.1):
                if key.data is None:
                    return
                key.data(mask)

    def close(self) -> None:
        self._waker.send(b"x")
        self._thread.join(DEADLINE_S)


@pytest.fixture
def turning() -> Iterator[Turning]:
    made = Turning()
    yield made
    made.close()


def refuse(request: dict[str, Any]) -> Any:
    raise control.ControlError("not today")


FAULTS: list[str] = []
COMMANDS: dict[str, control.Command] = {
    "echo": lambda request: request,
    "big": lambda request: ["x" * 100] * 20_000,
    "refuse": refuse,
    "fault": lambda request: request["none"],
}


@pytest.fixture
def path(tmp_path: Path, turning: Turning) -> Iterator[str]:
    path = str(tmp_path / "control.sock")
    server = control.ControlServer(turning.selector, control.listen(path), COMMANDS, FAULTS.append)
    turning.start()
    yield path
    turning.close()
    server.close()
    assert not os.path.exists(path)
    turning.close = lambda: None  # type: ignore[method-assign]


def test_answers_and_refusals(path: str) -> None:
    assert os.stat(path).st_mode & 0o777 == 0o660
    client = control.ControlClient(path)
    assert client.ask("echo", x=1) == {"command": "echo", "x": 1}
    assert len(client.ask("big")) == 20_000
    with pytest.raises(control.ControlError, match="not today"):
        client.ask("refuse")
    with pytest.raises(control.ControlError, match="known are big, echo, fault, refuse"):
        client.ask("fly")
    with pytest.raises(control.ControlError, match="internal fault: KeyError"):
        client.ask("fault")
    assert FAULTS.pop() == "control command fault: KeyError: 'none'"
    assert client.ask("echo")
    client.close()


def exchange(path: str, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect(path)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while piece := sock.recv(65_536):
            got += piece
        return got


@pytest.mark.parametrize(
    "line", [b"{}\n", b"[]\n", b"5\n", b"\xff\n", b"\n", b"[" * 60_000 + b"\n", b'{"command":[]}\n']
)
def test_nonsense_is_answered(path: str, line: bytes) -> None:
    answer = json.loads(exchange(path, line))
    assert answer["ok"] is False
    assert answer["error"]


def test_requests_without_end_and_half_requests_are_dropped(path: str) -> None:
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        assert exchange(path, b"x" * 1_000_000) == b""
    assert exchange(path, b'{"command":') == b""
    assert control.ControlClient(path, DEADLINE_S).ask("echo")


def test_several_requests_in_one_piece(path: str) -> None:
    lines = exchange(path, b'{"command":"echo","n":1}\n{"command":"echo","n":2}\n').splitlines()
    assert [json.loads(line)["result"]["n"] for line in lines] == [1, 2]


def test_clients_that_never_read_do_not_stop_others(path: str) -> None:
    idle = []
    for _ in range(streams.CONNECTIONS_MAX * 2):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.send(b'{"command":"big"}\n')
        idle.append(sock)
    assert control.ControlClient(path, DEADLINE_S).ask("echo")
    for sock in idle:
        sock.close()


def test_a_socket_left_behind_is_replaced_a_served_one_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "deep/control.sock")
    first = control.listen(path)
    with pytest.raises(control.ControlError, match="another srpnode serves it"):
        control.listen(path)
    first.close()
    control.listen(path).close()
    os.unlink(path)
    Path(path).write_text("mine")
    with pytest.raises(control.ControlError, match="not a socket"):
        control.listen(path)
    assert Path(path).read_text() == "mine"
    with pytest.raises(control.ControlError, match="no srpnode is running"):
        control.ControlClient(str(tmp_path / "none"))


def figures() -> dict[str, Any]:
    identity = {
        "name": 'a"b\\',
        "received": {"ping": 3},
        "sent": {"pong": 3},
        "drops": {"short": 1},
        "events": {"proofs": 2},
        "udp": {"in_bytes": 10, "out_bytes": 20, "handling_us": 1_500_000},
        "peers": {"known": 4},
        "cache": {"packets": 5},
        "strangersPerSecond": 40_000,
        "handling_us": [(1, 2), (2, 3), (None, 1)],
    }
    return {"version": "1", "uptime": 2.5, "identities": [identity]}


def test_the_metrics_page_is_prometheus_text() -> None:
    kind, body = metrics.page(figures())
    assert kind.startswith("text/plain; version=0.0.4")
    page = body.decode()
    read = {family.name: family for family in text_string_to_metric_families(page)}  # type: ignore[no-untyped-call]
    kinds = {name.removeprefix("srpnode_"): family.type for name, family in read.items()}
    assert kinds == {
        "info": "gauge",
        "uptime_seconds": "gauge",
        **dict.fromkeys(("received", "sent", "dropped", "events", "udp", "received_bytes", "sent_bytes"), "counter"),
        "peers": "gauge",
        "cache": "gauge",
        "strangers_per_second": "gauge",
        "handling_seconds": "histogram",
    }
    assert all(family.documentation.endswith(".") for family in read.values())
    (dropped,) = read["srpnode_dropped"].samples
    assert (dropped.labels, dropped.value) == ({"identity": 'a"b\\', "reason": "short"}, 1)
    label = 'identity="a\\"b\\\\"'
    assert f'srpnode_dropped_total{{{label},reason="short"}} 1' in page
    buckets = [line for line in page.splitlines() if "_bucket" in line]
    assert [line.rpartition(" ")[2] for line in buckets] == ["2.0", "5.0", "6.0"]
    assert f"srpnode_handling_seconds_sum{{{label}}} 1.5" in page


def test_prometheus_client_is_loaded_by_the_first_scrape_only() -> None:
    program = """if True:
        import sys
        import srpnode.daemon
        from srpnode import metrics
        answer = metrics.handler(lambda: {"version": "1", "uptime": 1, "identities": []}, print)
        assert answer(b"GET / HTTP/1.1\\r\\n\\r\\n")
        assert "prometheus_client" not in sys.modules
        assert b" 200 OK" in answer(b"GET /metrics HTTP/1.1\\r\\n\\r\\n")[0]
        assert "prometheus_client" in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_page_that_fails_is_told_and_answered() -> None:
    faults: list[str] = []
    answer = metrics.handler(dict, faults.append)(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert answer is not None
    assert answer[0].startswith(b"HTTP/1.1 500 ")
    assert faults == ["metrics page: KeyError: 'identities'"]


@pytest.fixture
def port(turning: Turning) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    server = metrics.serve(turning.selector, f"127.0.0.1:{number}", figures, FAULTS.append)
    turning.start()
    yield number
    turning.close()
    server.close()
    turning.close = lambda: None  # type: ignore[method-assign]


def test_the_page_over_http(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert answer.read() == metrics.page(figures())[1]

    def http(request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as sock:
            sock.sendall(request)
            got = b""
            while piece := sock.recv(65_536):
                got += piece
            return got

    assert http(b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404 ")
    assert http(b"garbage\r\n\r\n").startswith(b"HTTP/1.1 404 ")
    assert http(b"HEAD /metrics HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n")


def test_a_taken_metrics_port_is_named() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        number = sock.getsockname()[1]
        with pytest.raises(metrics.MetricsError, match=rf"metrics.listen: TCP port {number} of 127.0.0.1"):
            metrics.listen(f"127.0.0.1:{number}")
