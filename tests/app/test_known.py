"""Known peers survive a restart: the file, its damage, a full disk, and the greetings."""

import contextlib
import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from srpnode import known
from srpnode.journal import Journal
from srpnode.known import KnownPeers
from tests.app.command import srpnode
from tests.app.node import DEADLINE_S, Node
from tests.interop import datagram
from tests.interop.raw import RawPeer
from tests.interop.reference import Entry

MakeNode = Callable[[], Node]
OWN = "0f" * 32


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def peers(tmp_path: Path, said: io.StringIO) -> KnownPeers:
    return KnownPeers(str(tmp_path), "a", {OWN}, Journal("debug", stream=said))


def row(number: int, **other: Any) -> dict[str, Any]:
    peer_id = number.to_bytes(32, "big").hex()
    plain = {"address": f"198.51.100.{number}", "port": 5000, "peerId": peer_id, "proven": True, "age": number}
    return {**plain, "clusters": ["ab" * 8], **other}


def kept(directory: Path) -> list[dict[str, Any]]:
    content = json.loads((directory / "a.peers").read_text())
    assert (content["version"], content["kind"]) == (1, "peers")
    rows: list[dict[str, Any]] = content["data"]
    assert all(set(item) == {"address", "port", "peerId", "heard"} for item in rows)  # never more than that
    return rows


def test_keeps_the_proven_ones_heard_last(tmp_path: Path, peers: KnownPeers) -> None:
    peers.write([row(1)], 10)
    assert not (tmp_path / "a.peers").exists()  # not before it was read
    assert peers.read(10, 0) == 0
    rows = [row(number) for number in (9, 3, 1, 2)]
    peers.write([*rows, row(0, proven=False), row(4, peerId=None), row(5, peerId=OWN)], 3)
    assert [item["address"] for item in kept(tmp_path)] == ["198.51.100.1", "198.51.100.2", "198.51.100.3"]
    before = os.stat(tmp_path / "a.peers")
    peers.write([row(1), row(2), row(3)], 3)
    assert os.stat(tmp_path / "a.peers").st_ino == before.st_ino  # the same peers: not written again
    assert before.st_mode & 0o777 == 0o600


def test_silent_ones_are_remembered_for_a_day(
    tmp_path: Path, peers: KnownPeers, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers.read(10, 0)
    peers.write([row(1), row(2)], 10)
    peers.write([row(2, port=6000), row(3)], 10)  # 2 has moved, 1 is gone
    assert [(item["address"][-1], item["port"]) for item in kept(tmp_path)] == [("1", 5000), ("2", 6000), ("3", 5000)]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + known.KEPT_S + 1)
    peers.write([row(3)], 10)
    assert [item["address"][-1] for item in kept(tmp_path)] == ["3"]
    peers.write([row(4)], 1)  # those that answer have the room
    assert [item["address"][-1] for item in kept(tmp_path)] == ["4"]
    peers.write([row(4)], 0)
    assert kept(tmp_path) == []


def test_greets_each_once_within_the_span(peers: KnownPeers) -> None:
    peers.read(10, 0)
    peers.write([row(number) for number in range(1, 101)], 100)
    assert peers.read(40, 0.2) == 40
    assert peers.waiting
    named: list[str] = []
    turns = 0
    deadline = time.monotonic() + DEADLINE_S
    while peers.waiting:
        due = peers.due()
        turns += bool(due)
        named += [item.address for item in due]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert len(named) == len(set(named)) == 40
    assert turns > 1  # not all at once
    assert named != sorted(named)


GOOD = {"address": "198.51.100.1", "port": 1, "peerId": "ab" * 32, "heard": 0}
BAD: list[Any] = [
    5,
    {},
    [5],
    [{}],
    [GOOD, {**GOOD, "port": 0}],
    [{**GOOD, "port": 65536}],
    [{**GOOD, "port": "1"}],
    [{**GOOD, "address": "example.org"}],
    [{**GOOD, "address": "224.0.0.1"}],
    [{**GOOD, "address": "255.255.255.255"}],
    [{**GOOD, "peerId": "AB"}],
    [{**GOOD, "heard": None}],
    [{**GOOD, "more": 1}],
]


@pytest.mark.parametrize("data", [item for item in BAD if item != {}], ids=str)
def test_damage_is_kept_aside_whole(tmp_path: Path, peers: KnownPeers, said: io.StringIO, data: Any) -> None:
    text = json.dumps({"version": 1, "kind": "peers", "data": data})
    (tmp_path / "a.peers").write_text(text)
    assert peers.read(10, 0) == 0
    (aside,) = tmp_path.glob("a.peers.corrupt-*")
    assert aside.read_text() == text
    assert len(said.getvalue().splitlines()) == 1
    peers.write([row(1)], 10)
    assert len(kept(tmp_path)) == 1


# ---- with the real command ----


@pytest.fixture
def raw() -> Iterator[RawPeer]:
    made = RawPeer("127.0.0.1")
    yield made
    made.close()


def first(node: Node) -> Entry:
    entry = node.ask("info")[0]
    return Entry(entry["name"], entry["address"], entry["port"], entry["probePort"], entry["peerId"])


def proven(node: Node, raw: RawPeer) -> bool:
    rows = node.ask("peers")
    return any(row["identity"] == "a" and row["peerId"] == raw.peer_id and row["proven"] for row in rows)


def wait(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_peers_are_greeted_after_a_restart_and_prove_themselves(make_node: MakeNode, raw: RawPeer) -> None:
    node = make_node()
    node.write(top="keep_alive = 2")
    node.start()
    raw.connect(first(node))
    wait(lambda: proven(node, raw), "the node knows the peer")
    assert node.end() == 0
    state = node.directory / "state"
    assert [item["port"] for item in kept(state)] == [raw.port]
    before = len(raw.arrivals(datagram.PING))
    node.start()
    assert "a: greets 1 peers known from before" in node.wait_for("greets")
    wait(lambda: len(raw.arrivals(datagram.PING)) > before, "the node greets")  # we have sent nothing since
    wait(lambda: proven(node, raw), "the answer proves the peer")


def test_a_kill_loses_little_and_damage_is_survived(make_node: MakeNode, raw: RawPeer) -> None:
    node = make_node()
    node.write(top="keep_alive = 0.5")  # written every two keep-alives
    node.start()
    raw.connect(first(node))
    state = node.directory / "state"
    wait(lambda: (state / "a.peers").exists() and len(kept(state)) == 1, "the file while the node runs")
    node.end(signal.SIGKILL)
    node.start()
    node.wait_for("greets 1 peers")
    assert node.end() == 0
    whole = (state / "a.peers").read_bytes()
    (state / "a.peers").write_bytes(whole[: len(whole) // 2])
    said = len(node.lines)
    node.start()
    assert srpnode("ping", "-n", "1", f"127.0.0.1:{node.ports[0]}").returncode == 0
    assert node.end() == 0
    assert sum("a.peers: is corrupt; put aside" in line for line in node.lines[said:]) == 1
    (aside,) = state.glob("a.peers.corrupt-*")
    assert aside.read_bytes() == whole[: len(whole) // 2]


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system needs root")
def test_a_full_disk_leaves_the_old_file_and_the_node_alone(make_node: MakeNode, raw: RawPeer) -> None:
    node = make_node()
    state = node.directory / "state"
    state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", str(state)], check=True, timeout=60)
    try:
        node.write(top="keep_alive = 0.5")
        node.start()
        raw.connect(first(node))
        wait(lambda: (state / "a.peers").exists() and len(kept(state)) == 1, "the file while there is room")
        old = (state / "a.peers").read_bytes()
        with contextlib.suppress(OSError), (state / "big").open("wb", buffering=0) as big:
            while True:
                big.write(bytes(4096))
        other = RawPeer("127.0.0.1")
        try:
            other.connect(first(node))
            assert "No space left on device" in node.wait_for("a.peers: cannot be written")
            wait(lambda: proven(node, other), "it serves")
            time.sleep(2.5)  # two more attempts
            assert (state / "a.peers").read_bytes() == old
            (state / "big").unlink()
            wait(lambda: len(kept(state)) == 2, "the file when there is room again")
        finally:
            other.close()
        assert node.end() == 0
        assert sum("a.peers: cannot be written" in line for line in node.lines) == 1
        assert sorted(item.name for item in state.iterdir()) == ["a.key", "a.peers", "b.key", "b.peers", "lock", "volume.json"]
    finally:
        if node.process is not None:
            node.process.kill()
            node.process.wait()
        subprocess.run(["umount", "--lazy", str(state)], check=True, timeout=60)
