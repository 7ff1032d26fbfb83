"""The commands publish, listen, nat and trace, as a person types them."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.interop import sut
from tests.interop.conftest import Clients, Net
from tests.interop.sut import Introducer, Settings, executable
from tests.peer.conftest import DEADLINE_S

NAME = f"command {os.urandom(6).hex()}"
WHERE = ("--cluster", NAME, "--subcluster", "part")


@pytest.fixture
def via(node: Introducer) -> list[str]:
    return [word for entry in node.entries for word in ("--via", entry.endpoint)]


def run(*words: str, data: bytes | None = None, timeout_s: float = DEADLINE_S) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([executable(), *words], input=data, capture_output=True, timeout=timeout_s, check=False)


class Listener:
    """A running `srpnode listen`."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [executable(), "listen", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, self.process.communicate()
        said: dict[str, Any] = json.loads(text)
        return said

    def until(self, key: str) -> dict[str, Any]:
        """The next line that has this key."""
        while key not in (said := self.line()):
            pass
        return said


@contextmanager
def listening(*words: str) -> Iterator[Listener]:
    listener = Listener(*words)
    try:
        assert listener.line()["ready"]
        yield listener
    finally:
        listener.process.kill()
        listener.process.communicate()


def test_publish_and_listen(via: list[str]) -> None:
    with listening(*WHERE, *via) as every, listening("news", *WHERE, *via) as named:
        done = run("publish", "other", "not for the second", *WHERE, *via)
        assert done.returncode == 0, done.stderr
        assert every.until("event")["data"] == "not for the second"
        done = run("publish", "news", '{"language": "english"}', "--ttl", "600", "--json", *WHERE, *via)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["events"], told["packets"], told["held"]) == (1, 1, True)
        heard = named.until("event")
        assert heard["data"] == {"language": "english"}
        assert heard["packetId"] == told["packetId"]
        assert heard["verified"]
        assert heard["event"] == "news"
        again = every.until("event")
        assert again["packetId"] == told["packetId"]
        assert again["event"] is None
        done = run("publish", "news", *WHERE, *via, data=bytes(range(256)))
        assert done.returncode == 0, done.stderr
        assert named.until("event")["dataHex"] == bytes(range(256)).hex()
        named.process.send_signal(signal.SIGINT)
        assert named.process.wait(DEADLINE_S) == 130


def test_a_pipe_of_many_events_comes_out_as_it_went_in(via: list[str], tmp_path: Path) -> None:
    """tar c . | srpnode publish …   and   srpnode listen --raw … | tar x"""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(5):
            content = os.urandom(60_000)
            info = tarfile.TarInfo(f"file-{number}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    data = buffer.getvalue()
    with ExitStack() as stack:
        target = stack.enter_context((tmp_path / "out").open("wb"))
        listener = subprocess.Popen(
            [executable(), "listen", "files", "--raw", "-n", "1", "--timeout", str(DEADLINE_S), *WHERE, *via],
            stdout=target,
        )
        stack.callback(listener.kill)
        done = run("publish", "files", "-", "--per-minute", "0", "--json", *WHERE, *via, data=data)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["bytes"] == len(data)
        assert told["events"] == -(-len(data) // 65536)
        assert done.stderr == b""  # no progress where nobody looks
        assert listener.wait(DEADLINE_S) == 0
    assert (tmp_path / "out").read_bytes() == data


def test_a_reference_peer_hears_it(via: list[str], node: Introducer, shared_net: Net) -> None:
    clients = Clients(shared_net)
    try:
        client = clients(node, cluster=NAME)
        client.ready()
        client.join("part")
        client.listen("part", "to-reference")
        data = os.urandom(3000)
        assert run("publish", "to-reference", "-", *WHERE, *via, data=data).returncode == 0
        client.wait_message(data)
    finally:
        clients.process.close()


def test_nat(via: list[str], node: Introducer) -> None:
    done = run("nat", "--json", *via)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["natType"] == 31
    assert (told["mapping"], told["firewall"]) == ("the same for all peers", "lets anybody in")
    assert {each["peer"] for each in told["saidBy"]} == {entry.endpoint for entry in node.entries}
    assert all(each["knocked"] and each["sees"] == f"{told['address']}:{told['port']}" for each in told["saidBy"])
    assert told["warnings"] == []
    text = run("nat", *via).stdout.decode()
    for part in ("31, static", "everybody can reach us", *(f"said by   {entry.endpoint}" for entry in node.entries)):
        assert part in text


def test_nat_warns_when_both_peers_have_one_address(shared_net: Net) -> None:
    address = shared_net.host()
    node = sut.start((address, address), shared_net.pinger, Settings())
    try:
        via = [word for entry in node.entries for word in ("--via", entry.endpoint)]
        told = json.loads(run("nat", "--json", *via).stdout)
        assert "one address" in told["warnings"][0]
        assert "warning   both peers have one address" in run("nat", *via).stdout.decode()
    finally:
        node.close()


def test_progress_is_shown_on_a_terminal(via: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(300_000))
    terminal, inside = os.openpty()

    def shown(**given: Any) -> bytes:
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            [executable(), "publish", "many", *WHERE, *via],
            stdout=subprocess.PIPE,
            stderr=inside,
            timeout=DEADLINE_S,
            check=False,
            **given,
        )
        assert done.returncode == 0
        assert b"as 5 events in" in done.stdout
        return os.read(terminal, 65536)

    try:
        assert b"published: 300,000 bytes, " in shown(input=file.read_bytes())
        with file.open("rb") as data:
            text = shown(stdin=data)
        assert b" s left" in text
        assert b"published: 300,000 bytes of 300,000, " in text
    finally:
        os.close(terminal)
        os.close(inside)


def test_trace(via: list[str], node: Introducer) -> None:
    done = run("trace", "--json", *WHERE, *via)
    assert done.returncode == 0, (done.stdout, done.stderr)
    told = json.loads(done.stdout)
    assert {(e.address, e.port) for e in node.entries} <= {(p["address"], p["port"]) for p in told["peers"]}
    assert [step["step"] for step in told["steps"]] == ["publish", "query", "query", "query", "stream"]
    assert all(step["ok"] and step["ms"] > 0 and step["hops"] >= 0 for step in told["steps"])
    assert told["steps"][0]["sentTo"] >= 1
    assert told["steps"][-1]["direct"]
    text = run("trace", *WHERE, *via).stdout.decode()
    assert "publish  " in text
    assert "handed over by" in text


class TestBadInput:
    """A word to the operator and an exit status, never a hang, never a traceback."""

    @pytest.mark.parametrize(
        ("words", "status", "text"),
        [
            (["publish", "e", "x", *WHERE], 2, "--via"),
            (["publish", "e", "x", "--via", "127.0.0.1:9"], 2, "--cluster"),
            (["listen", *WHERE, "--via", "127.0.0.1"], 2, "HOST:PORT"),
            (["listen", *WHERE, "--via", "127.0.0.1:9", "--timeout", "0"], 2, "86400"),
            (
                ["publish", "e", "x", *WHERE, "--via", "127.0.0.1:9", "--timeout", "0.5"],
                1,
                "no answer from 127.0.0.1:9",
            ),
            (["listen", *WHERE, "--via", "no-such-host.invalid:1", "--timeout", "5"], 1, "no-such-host.invalid"),
            (["nat", "--via", "127.0.0.1:9", "--timeout", "0.5"], 1, "no answer"),
            (["trace", *WHERE, "--via", "127.0.0.1:9", "--timeout", "0.5"], 1, "no answer"),
            (["nat", "--via", "[::1]:9", "--timeout", "0.5"], 1, ""),
            (["publish", "e", "x", *WHERE, "--via", "127.0.0.1:9", "--per-minute", "-5"], 2, "per-minute"),
            (["ping", "127.0.0.1:9", "-n", "1", "--timeout", "0"], 2, "86400"),
        ],
    )
    def test_said_in_words(self, words: list[str], status: int, text: str) -> None:
        done = run(*words)
        assert done.returncode == status
        assert text in done.stderr.decode()
        assert "Traceback" not in done.stderr.decode()

    def test_one_peer_is_not_enough(self, node: Introducer) -> None:
        for words in (["nat"], ["publish", "e", "x", *WHERE]):
            done = run(*words, "--via", node.entries[0].endpoint)
            assert done.returncode == 1
            assert "name a second one" in done.stderr.decode()

    def test_event_and_data(self, via: list[str]) -> None:
        done = run("publish", "#join", "x", *WHERE, *via)
        assert done.returncode == 1
        assert "own" in done.stderr.decode()

    def test_nothing_comes(self, via: list[str]) -> None:
        done = run("listen", "never", *WHERE, *via, "--timeout", "1.5")
        assert done.returncode == 1
        assert "nothing came within 1.5 s" in done.stderr.decode()

    def test_who_is_pinged_is_silent(self, shared_net: Net) -> None:
        """The time given is the time waited: without --timeout it would be 2 s for each."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind((shared_net.host(), 0))
            address, port = silent.getsockname()
            done = run("ping", f"{address}:{port}", "-n", "1", "--timeout", "0.25")
        assert done.returncode == 1
        assert b"no answer in 0.25 s" in done.stdout
