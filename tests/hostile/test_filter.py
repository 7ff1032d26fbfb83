"""The optional filter in the kernel: real sockets, a real loop, the real command."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from pathlib import Path

import pytest

from srpnode.core import codec
from srpnode.guard import CALM_LOOKS, FLOOD, Guard, Seen
from srpnode.net import filter as kernel_filter
from srpnode.net.loop import prepare
from tests.app.command import srpnode
from tests.app.node import Node
from tests.net.echo import Client, Running, ping, running, until

SO_MEMINFO, MEMINFO_DROPS = 55, 8
SO_LOCK_FILTER = 44
UDP_SEGMENT = 103
MAGIC = bytes.fromhex("03050b11")
SHORTEST = MAGIC + b"\1\0\6" + bytes(16) + bytes(22)  # all eleven fields empty
GARBAGE = {
    "nothing": b"",
    "the byte that opens a way through a NAT": b"\1",
    "less than a magic": MAGIC[:3],
    "a magic alone": MAGIC,
    "a byte less than the shortest packet": SHORTEST[:-1],
    "no magic": bytes(200),
    "the magic elsewhere": b"\0" + SHORTEST,
}


def dropped(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * 9)
    return int(struct.unpack("9I", info)[MEMINFO_DROPS])


def waiting(sock: socket.socket) -> list[bytes]:
    """What is in the receive buffer."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(sock.recv(65536, socket.MSG_DONTWAIT))
    return found


def test_the_shortest_packet_is_what_the_codec_says() -> None:
    assert codec.verdict(SHORTEST[:-1]) == "short"
    assert codec.decode(SHORTEST)["size"] == len(SHORTEST) == kernel_filter.SHORTEST_PACKET


def test_packets_pass_and_garbage_does_not() -> None:
    packets = [SHORTEST, ping(1), codec.encode(codec.PUBLISH, message=bytes(1024)), SHORTEST + bytes(3000)]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        ours.bind(("127.0.0.1", 0))
        prepare(ours.fileno(), 1 << 20, 1 << 20)
        kernel_filter.attach(ours.fileno())
        for data in [*GARBAGE.values(), *packets, *GARBAGE.values()]:
            theirs.sendto(data, ours.getsockname())
        assert waiting(ours) == packets
        assert dropped(ours) == 2 * len(GARBAGE)
        kernel_filter.attach(ours.fileno())  # again: no change
        theirs.sendto(b"\1", ours.getsockname())
        assert waiting(ours) == []
        kernel_filter.detach(ours.fileno())
        kernel_filter.detach(ours.fileno())
        theirs.sendto(b"\1", ours.getsockname())
        assert waiting(ours) == [b"\1"]


def test_a_filtered_socket_serves() -> None:
    """Pings alone and in trains are answered, the loop hears its own datagram, garbage never gets to the core."""
    at = Running(start=False)
    try:
        kernel_filter.attach(at.main.fileno())
        at.loop.start()
        with Client(at.to) as client:
            for data in GARBAGE.values():
                client.sock.sendto(data, at.to)
            client.ask(range(10))
            control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(ping(0))))]
            client.sock.sendmsg([b"".join(map(ping, range(100, 120)))], control, 0, at.to)
            client.waiting = set(range(100, 120))
            client.listen()
        assert at.loop.beat(30) >= 0
        assert at.count("in_kernel_drops_now") == len(GARBAGE)
        assert at.node.counters()["drop_magic"] == at.node.counters()["drop_short"] == 0
    finally:
        at.close()


def test_without_it_garbage_has_a_reason() -> None:
    with running() as at, Client(at.to) as client:
        for data in GARBAGE.values():
            client.sock.sendto(data, at.to)
        client.ask([1])
        counters = at.node.counters()
        assert counters["drop_magic"] + counters["drop_short"] == len(GARBAGE)
        assert at.count("in_kernel_drops_now") == 0


def test_the_pool_hears_what_opens_a_way() -> None:
    """The filter stands before main and probe alone: a socket of the pool is asked to count one-byte datagrams."""
    at = Running(start=False, pool_size=1)
    try:
        kernel_filter.attach(at.main.fileno())
        at.loop.start()
        assert at.loop.open_pool() == 1
        (port,) = pool_ports(at)
        with Client(at.to) as client:
            client.sock.sendto(b"\1", (at.to[0], port))
        until(lambda: at.node.counters()["drop_short"] == 1, "the opening was dropped before it was counted")
    finally:
        at.close()


def pool_ports(at: Running) -> list[int]:
    """Ports of this process's UDP sockets on the loop's address whose buffers have the size of the pool's."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), socket.socket(fileno=socket.dup(int(link.name))) as sock:
            size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            if sock.family == socket.AF_INET and size == 2 * 65536 and sock.getsockname()[0] == at.to[0]:
                found.append(int(sock.getsockname()[1]))
    return found


def test_overruns_are_told_apart() -> None:
    """The machine's count of full receive buffers does not move for what the filter drops."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        ours.bind(("127.0.0.1", 0))
        prepare(ours.fileno(), 4096, 4096)
        before = kernel_filter.overruns()
        assert before is not None
        for _ in range(200):
            theirs.sendto(ping(1), ours.getsockname())
        after = kernel_filter.overruns()
        assert after is not None
        assert after - before >= dropped(ours) > 0
        lost = dropped(ours)
        kernel_filter.attach(ours.fileno())
        waiting(ours)
        for _ in range(2000):
            theirs.sendto(bytes(200), ours.getsockname())
        assert dropped(ours) - lost == 2000
        now = kernel_filter.overruns()
        assert now is not None
        assert now - after < 1000  # of other programs on this machine, if any


@pytest.fixture
def node() -> Node:
    return Node()


def send_garbage(node: Node, count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(count):
            sock.sendto(bytes(200), ("127.0.0.1", node.ports[0]))


def test_the_command_has_it_when_it_is_told_to(node: Node) -> None:
    try:
        node.write("[limits]", 'kernel_filter = "on"')
        node.start()
        assert [identity["filter"] for identity in node.ask("status")["identities"]] == ["on", "on"]
        assert "filter    in the kernel, on" in srpnode("status", "-c", str(node.file)).stdout
        send_garbage(node, 50)
        done = srpnode("ping", "-n", "1", f"127.0.0.1:{node.ports[0]}")
        assert done.returncode == 0, done
        status = node.ask("status")["identities"][0]
        assert status["udp"]["in_kernel_drops_now"] == 50
        assert status["drops"]["magic"] == 0
        assert not [line for line in node.lines if "receive buffer was full" in line]
        node.write("[limits]", 'kernel_filter = "off"')
        assert srpnode("reload", "-c", str(node.file)).returncode == 0
        assert [identity["filter"] for identity in node.ask("status")["identities"]] == ["off", "off"]
        send_garbage(node, 50)
        assert srpnode("ping", "-n", "1", f"127.0.0.1:{node.ports[0]}").returncode == 0
        status = node.ask("status")["identities"][0]
        assert status["udp"]["in_kernel_drops_now"] == 50
        assert status["drops"]["magic"] == 50
    finally:
        node.close()


def test_it_comes_with_a_flood_and_goes_after_a_calm_minute() -> None:
    guard = Guard()
    assert not guard.wants_filter(Seen(5_000, 5_000, 900), False)  # from before the first look
    assert not guard.wants_filter(Seen(9_000, 9_000, 900), False)  # nothing was lost
    assert not guard.wants_filter(Seen(19_000, 13_000, 5_000), False)  # most of it is packets
    assert not guard.wants_filter(Seen(19_900, 13_900, 5_001), False)  # hardly a flood
    assert guard.wants_filter(Seen(23_900, 16_900, 6_000), False)
    lost = 6_000
    for _ in range(3):
        lost += 50_000
        assert guard.wants_filter(Seen(23_900, 16_900, lost), True)
        for _ in range(CALM_LOOKS - 1):
            lost += FLOOD - 1
            assert guard.wants_filter(Seen(24_000, 16_900, lost), True)
    assert not guard.wants_filter(Seen(24_000, 16_900, lost), True)
    assert not guard.wants_filter(Seen(24_000, 16_900, lost), False)


def test_an_overrun_by_garbage_brings_it(node: Node) -> None:
    try:
        node.write()
        node.start()
        assert [identity["filter"] for identity in node.ask("status")["identities"]] == ["off", "off"]
        assert node.process is not None
        pid = node.process.pid
        os.kill(pid, signal.SIGSTOP)  # the buffer is full long before all of it was sent
        try:
            send_garbage(node, 100_000)
        finally:
            os.kill(pid, signal.SIGCONT)
        node.wait_for("the kernel drops it from now on")
        assert [identity["filter"] for identity in node.ask("status")["identities"]] == ["on", "off"]
        assert srpnode("ping", "-n", "1", f"127.0.0.1:{node.ports[0]}").returncode == 0
    finally:
        node.close()


def test_a_kernel_that_refuses_is_told_once_and_the_node_serves(node: Node) -> None:
    """A socket that was kept by a service manager, with a filter that is locked."""
    try:
        node.write("[limits]", 'kernel_filter = "on"')
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kept:
            kept.bind(("127.0.0.1", node.ports[0]))
            kernel_filter.attach(kept.fileno())
            kept.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
            through = ["bash", "-c", f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&{kept.fileno()}', "sh"]
            node.start(through=through, fds=[kept.fileno()])
        lines = [line for line in node.lines if "works without the filter in the kernel" in line]
        assert len(lines) == 1, node.lines
        assert [identity["filter"] for identity in node.ask("status")["identities"]] == [
            "refused: Operation not permitted",
            "on",
        ]
        assert srpnode("ping", "-n", "1", f"127.0.0.1:{node.ports[0]}").returncode == 0
    finally:
        node.close()
