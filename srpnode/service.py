"""Talking to systemd: readiness, status, watchdog, sockets kept over a restart. Does nothing where there is none."""

import importlib
import os
import socket
import time
from typing import Any


def _daemon() -> Any:
    return importlib.import_module("systemd.daemon")  # loaded only where it is needed: 2 MB


def _notify(state: str, descriptors: list[int] | None = None) -> bool:
    if not os.environ.get("NOTIFY_SOCKET"):
        return False
    if descriptors:
        return bool(_daemon().notify(state, fds=descriptors))
    return bool(_daemon().notify(state))


def ready(status: str) -> None:
    """The node serves."""
    _notify(f"READY=1\nSTATUS={status}")


def status(text: str) -> None:
    """One line for `systemctl status`."""
    _notify(f"STATUS={text}")


def alive() -> None:
    """Feeds the watchdog."""
    _notify("WATCHDOG=1")


def reloading() -> None:
    """A reload begins; ready() ends it. systemd 253 and later want the time."""
    _notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """The node ends."""
    _notify("STOPPING=1")


def watchdog_s() -> float:
    """How often the watchdog must be fed at least, in seconds; 0 without a watchdog."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return 0.0


def _store_name(address: str, port: int) -> str:
    return f"udp-{address}-{port}"


def store(sock: socket.socket) -> None:
    """Has systemd keep a bound socket, so that a restart or a crash loses no datagram. Again: no change."""
    _notify(f"FDSTORE=1\nFDNAME={_store_name(*sock.getsockname())}", [sock.fileno()])


def forget(address: str, port: int) -> None:
    """systemd lets go of the socket that was bound there."""
    _notify(f"FDSTOREREMOVE=1\nFDNAME={_store_name(address, port)}")


def stored() -> list[int]:
    """Descriptors that an earlier run of this service left with systemd."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    return list(_daemon().listen_fds(unset_environment=True))
