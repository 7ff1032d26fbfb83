"""UDP sockets for the loop: opened, bound and prepared, or taken over from a previous process.

A port that is taken is reported with the process that holds it, as far as /proc tells.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from srpnode.net.loop import prepare

# Enough for a pause of a tenth of a second at 100 000 small datagrams a second. In an overload the whole buffer is the
# queue in which everybody waits, the loop's own heartbeat too: more of it would help nobody.
RECEIVE_BYTES = 4 << 20
SEND_BYTES = 1 << 20  # the output of a whole batch, on its way to a network card

# /proc/net is hidden where ProcSubset=pid; a process's own view of it is not.
TABLES = ("/proc/self/net/udp", "/proc/self/net/udp6")


class SocketError(OSError):
    """A socket that cannot be had, in one sentence an operator can act on."""


@dataclass(frozen=True)
class Holder:
    """A process that has a UDP port."""

    pid: int | None  # None: /proc does not tell
    name: str
    uid: int

    def __str__(self) -> str:
        if self.pid is None:
            return f"a process of user {self.uid} (its descriptors are not readable)"
        return f"{self.name} (pid {self.pid}, user {self.uid})"


def open_udp(address: str, port: int, *, receive_bytes: int = RECEIVE_BYTES, send_bytes: int = SEND_BYTES) -> socket.socket:
    """A bound IPv4 socket with everything the loop relies on; port 0: the system chooses one.

    receive_bytes and send_bytes are wished sizes of the kernel's buffers, the system may allow less (net.core.rmem_max,
    net.core.wmem_max). Raises SocketError with the errno of bind().
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        try:
            sock.bind((address, port))
        except OSError as error:
            raise SocketError(error.errno, _bind_problem(address, port, error)) from error
        prepare(sock.fileno(), receive_bytes, send_bytes)
    except BaseException:
        sock.close()
        raise
    return sock


class Inherited:
    """Sockets that a previous process left open, kept for us by the service manager.

    What they are is asked of the sockets themselves, their order and names mean nothing. Descriptors that are no bound
    IPv4 UDP sockets are left alone.
    """

    def __init__(self, fds: Iterable[int]) -> None:
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        for fd in fds:
            sock = _as_udp(fd)
            if sock is None:
                continue
            name: tuple[str, int] = sock.getsockname()
            if name in self._sockets:  # a second descriptor of the same port
                sock.close()
            else:
                self._sockets[name] = sock

    def __len__(self) -> int:
        return len(self._sockets)

    def open_udp(
        self, address: str, port: int, *, receive_bytes: int = RECEIVE_BYTES, send_bytes: int = SEND_BYTES
    ) -> socket.socket:
        """The inherited socket of this address and port and what waits in it, else a new one (see the function)."""
        sock = self._sockets.pop((_numeric(address), port), None)
        if sock is None:
            return open_udp(address, port, receive_bytes=receive_bytes, send_bytes=send_bytes)
        sock.setblocking(False)
        prepare(sock.fileno(), receive_bytes, send_bytes)
        return sock

    def close_rest(self) -> list[tuple[str, int]]:
        """Closes what nobody asked for (a port that the configuration no longer names); which those were."""
        rest = list(self._sockets)
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        return rest


def _as_udp(fd: int) -> socket.socket | None:
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    kind = (sock.family, sock.type)
    if kind != (socket.AF_INET, socket.SOCK_DGRAM) or sock.getsockname()[1] == 0:
        sock.detach()
        return None
    os.set_inheritable(fd, False)
    return sock


def _numeric(address: str) -> str:
    """The address as getsockname() writes it."""
    return socket.inet_ntoa(socket.inet_aton(address)) if address else "0.0.0.0"


def _bind_problem(address: str, port: int, error: OSError) -> str:
    where = f"{address}:{port}"
    if error.errno == errno.EADDRINUSE:
        found = holders(address, port)
        who = " and ".join(str(holder) for holder in found) if found else "another process"
        return f"cannot bind {where}: UDP port {port} is taken by {who}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot bind {where}: no interface of this machine has the address {address}"
    if error.errno in (errno.EACCES, errno.EPERM) and 0 < port < 1024:
        return f"cannot bind {where}: ports below 1024 need CAP_NET_BIND_SERVICE"
    return f"cannot bind {where}: {error.strerror}"


def holders(address: str, port: int) -> list[Holder]:
    """Who holds a UDP port in a way that keeps us from binding it, as far as /proc can be read."""
    owners: dict[int, int] = {}
    for table in TABLES:
        with contextlib.suppress(OSError), open(table, encoding="ascii") as lines:
            owners.update(_owners(lines, address, port))
    found = []
    for inode, uid in owners.items():
        processes = list(_processes(inode))
        found += [Holder(pid, name, uid) for pid, name in processes] or [Holder(None, "", uid)]
    return sorted(set(found), key=str)


def _owners(lines: Iterable[str], address: str, port: int) -> Iterator[tuple[int, int]]:
    """(inode, uid) of the table's sockets that conflict with address and port."""
    any_address = _numeric(address) == "0.0.0.0"
    for line in list(lines)[1:]:
        fields = line.split()
        local, local_port = fields[1].split(":")
        bound = _ipv4(local)
        if int(local_port, 16) != port or bound is None:
            continue
        if any_address or bound in ("0.0.0.0", _numeric(address)):
            yield int(fields[9]), int(fields[7])


def _ipv4(words: str) -> str | None:
    """An address of /proc/net/udp or udp6 as IPv4: `::` stands for every IPv4 address, ::ffff:a.b.c.d for one."""
    if words.strip("0") == "":
        return "0.0.0.0"
    if len(words) == 32 and words[:24] != "0" * 16 + "FFFF0000" and words[:24] != "0" * 16 + "0000FFFF":
        return None
    return socket.inet_ntoa(int(words[-8:], 16).to_bytes(4, sys.byteorder))


def _processes(inode: int) -> Iterator[tuple[int, str]]:
    """(pid, name) of the processes that have the socket open."""
    wanted = f"socket:[{inode}]"
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if any(_points_to(fd, wanted) for fd in (process / "fd").iterdir()):
                yield int(process.name), (process / "comm").read_text(encoding="utf-8", errors="replace").strip()


def _points_to(link: Path, target: str) -> bool:
    try:
        return os.readlink(link) == target
    except OSError:
        return False
