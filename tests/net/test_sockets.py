"""Sockets: opened with what the loop needs, taken over from a process before us, refused with a reason."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from srpnode.net import sockets
from srpnode.net.sockets import Holder, Inherited, SocketError, holders, open_udp

IP_MTU_DISCOVER, IP_PMTUDISC_OMIT = 10, 5
IP_PKTINFO = 8

# Binds a UDP port as somebody else and says which, then waits to be ended.
HOLDER = """
import socket, sys
s = socket.socket(socket.AF_INET6 if sys.argv[1] == "::" else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
print(s.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def free_port() -> int:
    with open_udp("127.0.0.1", 0) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_a_socket_has_what_the_loop_needs() -> None:
    with open_udp("127.0.0.1", 0, receive_bytes=300_000, send_bytes=200_000) as sock:
        assert not sock.getblocking()
        assert not os.get_inheritable(sock.fileno())
        assert sock.getsockopt(socket.IPPROTO_IP, IP_PKTINFO) == 0  # there is but one address that it can be
        assert sock.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == IP_PMTUDISC_OMIT
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        # the kernel counts its own overhead, and doubles
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 300_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 200_000
    with open_udp("0.0.0.0", 0) as sock:
        assert sock.getsockopt(socket.IPPROTO_IP, IP_PKTINFO) == 1


def test_buffers_without_privilege_are_as_large_as_allowed() -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to give it up")
    program = """
import os, socket
os.setgid(65534); os.setuid(65534)
from srpnode.net.sockets import open_udp
s = open_udp("127.0.0.1", 0, receive_bytes=1 << 30)
print(s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
"""
    folder = Path(sockets.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    if "PermissionError" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip("this directory is not readable for others")
    allowed = int(Path("/proc/sys/net/core/rmem_max").read_text(encoding="ascii"))
    assert int(done.stdout) == 2 * allowed, done.stderr


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "::")],
)
def test_a_taken_port_is_reported_with_its_holder(ours: str, theirs: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, theirs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        with pytest.raises(SocketError) as refused:
            open_udp(ours, port)
        name = Path(f"/proc/{other.pid}/comm").read_text(encoding="ascii").strip()
        assert refused.value.errno == errno.EADDRINUSE
        assert refused.value.strerror == (
            f"cannot bind {ours}:{port}: UDP port {port} is taken by {name} (pid {other.pid}, user {os.getuid()})"
        )
        other.stdin.close()  # type: ignore[union-attr]


def test_the_holder_may_be_ourselves_and_others_do_not_count() -> None:
    with open_udp("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        assert [holder.pid for holder in holders("127.0.0.1", port)] == [os.getpid()]
        assert holders("127.0.0.2", port) == []
        with open_udp("127.0.0.2", port):
            assert len(holders("0.0.0.0", port)) == 1  # one process, though two sockets
    assert holders("127.0.0.1", port) == []


def test_a_holder_that_cannot_be_seen_is_named_by_its_user() -> None:
    assert "user 33" in str(Holder(None, "", 33))


def test_other_refusals_have_their_reason() -> None:
    with pytest.raises(SocketError, match=r"no interface of this machine has the address 203\.0\.113\.9") as refused:
        open_udp("203.0.113.9", 3511)
    assert refused.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(SocketError, match=r"cannot bind 300\.1\.1\.1:3511"):
        open_udp("300.1.1.1", 3511)


def test_a_refusal_leaves_no_descriptor(free_port: int) -> None:
    with open_udp("127.0.0.1", free_port):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            with pytest.raises(SocketError):
                open_udp("127.0.0.1", free_port)
        assert len(os.listdir("/proc/self/fd")) == before


def test_inherited_sockets_are_found_by_what_they_are_bound_to(free_port: int) -> None:
    first, second = open_udp("127.0.0.1", 0), open_udp("0.0.0.0", 0)
    names = [first.getsockname(), second.getsockname()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"waits", names[0])
    fds = [second.dup().detach(), first.dup().detach(), first.dup().detach()]  # any order, one twice
    first.close()
    second.close()
    inherited = Inherited(fds)
    assert len(inherited) == 2
    with inherited.open_udp(*names[0]) as one, inherited.open_udp("127.0.0.1", free_port) as other:
        assert one.getsockname() == names[0]
        assert one.recv(10) == b"waits"
        assert not os.get_inheritable(one.fileno())
        assert one.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == IP_PMTUDISC_OMIT
        assert other.getsockname() == ("127.0.0.1", free_port)  # not kept, so opened
        with pytest.raises(SocketError):  # the second port is still held, by a socket nobody asked for
            open_udp(*names[1])
        assert inherited.close_rest() == [names[1]]
        with open_udp(*names[1]):
            pass
    assert len(inherited) == 0


def test_what_is_no_bound_udp_socket_is_left_alone() -> None:
    reading, writing = os.pipe()
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unbound:
        assert len(Inherited([reading, tcp.fileno(), unbound.fileno(), 10**6])) == 0
        for fd in (reading, tcp.fileno(), unbound.fileno()):
            os.fstat(fd)
    os.close(reading)
    os.close(writing)
